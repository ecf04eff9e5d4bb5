"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from incatalog.config import HistoryForm, ListForm, LossType, Method, ParaphrasePlace, ScopeType


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
        vectors: Item vectors (npy) that `ret` finds items by; make them with
            `incatalog items embed`.
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
        paraphrases: File of `incatalog rewrite apply` with other names of items to train on.
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
class MergeConfig:
    """Merge an adapter into its backbone and write a plain Hugging Face folder.

    Attributes:
        run: Run folder of `incatalog train sft` or `incatalog train grpo`.
        out: Folder for the merged model.
        verify: Check the model's files against the checksums recorded when it was trained;
            false loads huge models sooner.
    """

    run: Path
    out: Path
    verify: bool = True
