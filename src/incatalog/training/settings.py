"""Settings of the commands of `training`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from incatalog.config import (
    AnswerForm,
    Fraction,
    FractionBelowOne,
    Headings,
    HistoryForm,
    ListForm,
    LoraInit,
    LossType,
    Method,
    NonNegative,
    NonNegativeFloat,
    ParaphrasePlace,
    Positive,
    PositiveFloat,
    Projection,
    ScopeType,
    Settings,
)
from incatalog.training.presets import Preset, implied_preset, preset_settings


@dataclass(frozen=True)
class TrainerSettings(Settings):
    """What every training of a recommender is told."""

    headings: ClassVar[Headings] = {
        "data": "model data out title_field",
        "LoRA": "tune lora_r lora_alpha lora_targets",
        "optimiser": (
            "batch_size gradient_accumulation max_steps learning_rate warmup_ratio scheduler "
            "weight_decay clip_norm"
        ),
        "run": "bf16 attention logging_steps report_to device",
    }

    model: str | Path
    """Hub name or folder of a causal LM, or `tiny` or `smollm2`."""
    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder; checkpoints and the final model or adapter go here."""
    title_field: str = ""
    """Text field of metas.jsonl by which the model knows the items (people are shown `title`); that
    of `model` where it was trained on a catalog, `title` for others."""
    tune: Literal["lora", "full"] = "lora"
    """Train LoRA adapters or all weights."""
    lora_r: Positive = 16
    """Rank of the adapters."""
    lora_alpha: float = 8.0
    """Scale of the adapters."""
    lora_targets: str = "all-linear"
    """Modules that get adapters; `all-linear` for every linear layer."""
    batch_size: Positive = 8
    """Samples per process and step."""
    gradient_accumulation: Positive = 1
    """Batches per optimiser step."""
    max_steps: NonNegative = 0
    """Stop after this many steps; 0 for no limit."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate."""
    warmup_ratio: Fraction = 0.05
    """Share of steps with rising learning rate."""
    scheduler: Literal["polynomial", "linear", "cosine", "constant"] = "polynomial"
    """Learning-rate schedule of transformers; polynomial decays to a share of the peak."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW."""
    clip_norm: NonNegativeFloat = 1.0
    """Gradient norm limit; 0 for none."""
    bf16: bool = False
    """Train in bfloat16 mixed precision."""
    attention: str = "sdpa"
    """Attention implementation passed to transformers."""
    logging_steps: Positive = 10
    """Steps between log lines."""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Who is told the log, one or more of: tensorboard (in the run folder), mlflow, wandb, trackio;
    or none."""
    device: str = "auto"
    """`cpu`, or auto for what accelerate finds."""

    def per_step(self, processes: int) -> int:
        """Samples, or answers, of an optimiser step."""
        return self.batch_size * self.gradient_accumulation * processes

    def lora(self) -> dict[str, Any]:
        """What `add_lora` is told in every training."""
        return {"r": self.lora_r, "alpha": self.lora_alpha, "targets": self.lora_targets}


@dataclass(frozen=True)
class SampleSettings(Settings):
    """What samples of supervised training look like, and how many there are of a kind."""

    headings: ClassVar[Headings] = {
        "form of items": (
            "item_form history_form answer_form list_form mention_control_tokens system"
        ),
        "samples": (
            "max_history window history_dropout list_length fixed_list_length candidate_ratio "
            "min_candidates max_candidates chat_ratio multi_round_ratio align_ratio max_length "
            "loss_on_history"
        ),
        "teacher": "teacher_sees distill distill_temperature distill_items",
        "other names of items": "paraphrases_in paraphrase_ratio",
        "run": "seed",
    }

    item_form: Literal["auto", "codes", "titles"] = "auto"
    """For `token`, `codes` or `titles`; auto takes codes where the index files are and says so
    where it falls back to titles."""
    history_form: Literal["auto", "title", "span"] = "auto"
    """Write history items as quoted titles or as item spans; auto takes spans for codes and titles
    otherwise."""
    answer_form: AnswerForm = "span"
    """Write the items of answers as spans between the control tokens, or as plain titles, which
    nothing holds to the catalog: a baseline, to show what the control tokens buy; only for `cgen`,
    with wordings that do not mention them."""
    list_form: ListForm = "numbered"
    """Write answers as numbered lines, as plain lines, or as numbered lines that begin with a space
    from the second on (`indented`, as RecLM-cgen does)."""
    mention_control_tokens: bool = True
    """Also train on the wordings that mention the control tokens."""
    system: str = ""
    """What a system message says in front of every conversation, in training and from then on
    whenever the model is asked; conversations with a system message of their own keep that."""
    max_history: Positive = 10
    """Newest items of a history the prompt shows."""
    window: Literal["random", "full", "every-prefix"] = "random"
    """Start the history of a sample at random, or show all of `max_history`; one sample per user
    and epoch with these. With every-prefix each training item but a user's first is the target of a
    sample of its own, in every epoch, with all of `max_history` before it."""
    history_dropout: Fraction = 0.0
    """Share of a sample's history items that are left out at random."""
    list_length: Positive = 10
    """Items in an answer at most; each sample draws 1..list_length."""
    fixed_list_length: bool = False
    """Always ask for `list_length` items."""
    teacher_sees: Literal["window", "history"] = "window"
    """Show the teacher the same window as the model, or the whole history before the target; it
    recommends none of what it is shown. This is about lists; for --distill it sees the window."""
    distill: Fraction = 0.0
    """Share of the teacher in what is trained at each decision of an item span, and how often an
    answer begins with an item drawn from the teacher; 0 trains on the items of the data alone."""
    distill_temperature: PositiveFloat = 1.0
    """What the teacher's log-probabilities are divided by for --distill: above 1 flatter."""
    distill_items: Positive = 64
    """The teacher's best items that --distill tells apart; all others have equal parts of what is
    left."""
    candidate_ratio: Fraction = 0.0
    """Share of samples that offer a candidate list in the prompt."""
    min_candidates: NonNegative = 0
    """Length of a candidate list at least; the same as --max-candidates for one length alone. No
    list is shorter than its answer."""
    max_candidates: int = 20
    """Length of a candidate list at most."""
    chat_ratio: NonNegativeFloat = 0.0
    """Whole general conversations per recommendation sample."""
    multi_round_ratio: Fraction = 0.0
    """Share of recommendation samples with a general turn before or after."""
    align_ratio: NonNegativeFloat = 0.0
    """Samples that teach what codes mean (text of an item to its codes, codes to its title) per
    recommendation sample; needs codes."""
    paraphrases_in: ParaphrasePlace = "history"
    """Where paraphrases stand in place of titles: in the histories of prompts (`history`), in the
    answers, so that the model may name an item by them from then on (`targets`, only for `cgen`),
    or in both."""
    paraphrase_ratio: Fraction = 0.5
    """Share of the occurrences of an item that has paraphrases at which one of them stands in place
    of its title."""
    max_length: Positive = 1024
    """Tokens of a sample at most; older history items are cut to fit."""
    loss_on_history: bool = False
    """Also train on the item spans of the prompt's history (needs `span`)."""
    seed: NonNegative = 0
    """Seed of samples, initialisation and dropout."""

    @property
    def shown_history(self) -> HistoryForm:
        """How history items are written, `auto` resolved."""
        if self.history_form != "auto":
            return self.history_form
        return "span" if self.item_form == "codes" else "title"


@dataclass(frozen=True)
class SftSettings(SampleSettings, TrainerSettings):
    """Fine-tune a chat model on recommendation conversations.

    Example:
        incatalog train sft --model tiny --data data --teacher runs/teacher --out runs/tiny
        incatalog train sft --preset 8b --model FOLDER --data data --teacher runs/teacher \
--out runs/sft
    """

    headings: ClassVar[Headings] = {
        "data": "preset chat",
        "method": "method index scope loss focal_gamma",
        "retrieval (ret)": (
            "vectors retrieval_weight projection projection_inner negatives unseen_only "
            "train_item_vectors only_head"
        ),
        "teacher": "teacher",
        "form of items": "wording soi_token eoi_token",
        "samples": "",
        "other names of items": "paraphrases",
        "LoRA": "lora_dropout lora_init train_embeddings train_lm_head quantization",
        "tiny model": "tiny_vocab tiny_hidden tiny_inner tiny_layers tiny_heads tiny_dropout",
        "optimiser": "epochs adam_beta2 adam_eps scheduler_power scheduler_end",
        "validation": "validate_every validation_users keep_best patience exclude_seen",
        "run": "gradient_checkpointing checkpoint_every workers",
    }

    model: str
    preset: Preset = "auto"
    """Defaults that fit a model, for all that flags and files leave open: tiny (from scratch),
    small (LoRA of up to a billion parameters), 8b (as published, on Llama-3-8B) or none; auto takes
    tiny for `tiny`, small for `smollm2` and folders of chat models of that size, none for
    others."""
    method: Method = "cgen"
    """How an item is written inside its span: `cgen` by its title, `token` by its codes, `ret` by
    its title too, but found by its vector and not chosen word by word."""
    index: str = ""
    """Folder of `{dataset}.index.json` and `{dataset}.item2id`; the data folder if empty."""
    vectors: str = ""
    """Item vectors (npy) that `ret` finds items by; make them with `incatalog items embed`."""
    retrieval_weight: PositiveFloat = 1.0
    """Factor of the retrieval loss beside the language loss; each is a mean."""
    projection: Projection = "linear"
    """What `ret` turns a hidden state into a query with: one layer (linear), or two with GELU
    between them (mlp), as published."""
    projection_inner: Positive = 2048
    """Numbers between the two layers of an mlp."""
    negatives: NonNegative = 0
    """Random items that stand for the catalog in the retrieval loss; 0 takes the exact softmax over
    all items, which catalogs above 100,000 items can do without."""
    unseen_only: bool = False
    """Leave the items that stand before a span out of its softmax in the retrieval loss, for
    answers that leave out what was seen (as is usual): it learns more of the rest, and nothing of
    who takes an item twice."""
    train_item_vectors: bool = False
    """Also train the item vectors."""
    only_head: bool = False
    """Train the retrieval head (and vectors) alone; the language model stays as it is and is saved
    whole."""
    teacher: str = ""
    """Run folder of a fitted teacher that extends the lists, or the URL of one that is served by
    `incatalog teacher serve` or a published server; empty trains on the single next item."""
    chat: Path | None = None
    """General conversations in ShareGPT format; needed by --chat-ratio, --multi-round-ratio."""
    paraphrases: Path | None = None
    """File of `incatalog rewrite apply` with other names of items to train on."""
    wording: str = "test-single-turn"
    """Wording the trained model is asked with, one of those for tests."""
    soi_token: str = "<SOI>"
    """Token that opens an item span: one the vocabulary lacks, or has as a special token that
    stands for nothing else, such as `<|reserved_special_token_0|>`."""
    eoi_token: str = "<EOI>"
    """Token that closes an item span, likewise."""
    scope: ScopeType = "every"
    """Where the softmax of an item span runs over the catalog's continuations only: branching (only
    nodes with a choice), open (all but the forced closing), every, or off (nowhere: plain cross
    entropy over the whole vocabulary, to show what the scope buys)."""
    loss: LossType = "plain"
    """Focal loss on item spans (all of their positions), on all labels, or plain cross entropy."""
    focal_gamma: NonNegativeFloat = 2.0
    """Exponent of the focal loss."""
    lora_dropout: float = 0.1
    """Dropout on the adapters' input."""
    lora_init: LoraInit = "kaiming"
    """How the adapters' matrix A starts, beside B with zeros: uniform after Kaiming, as usual, or
    orthogonal with gain sqrt(2), as published."""
    train_embeddings: bool = False
    """Train the whole input embedding rather than the new tokens' rows."""
    train_lm_head: bool = False
    """Train the whole output layer rather than the new tokens' rows."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """Load the backbone in 8 or 4 bits (CUDA only)."""
    tiny_vocab: int = 6144
    """Tokens of a `tiny` model at most."""
    tiny_hidden: int = 128
    """Width of a `tiny` model."""
    tiny_inner: int = 256
    """Width of its feed-forward layers."""
    tiny_layers: int = 2
    """Number of its blocks."""
    tiny_heads: int = 4
    """Number of its attention heads."""
    tiny_dropout: Fraction = 0.0
    """Dropout of its embeddings and of what its blocks add to them, in training."""
    epochs: Positive = 10
    """Passes over the users; one sample per user and pass, or several with --window
    every-prefix."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    adam_beta2: FractionBelowOne = 0.999
    """Decay of AdamW's second moment; short trainings want less than 0.999."""
    adam_eps: PositiveFloat = 1e-8
    """What AdamW adds to the root of the second moment."""
    scheduler_power: PositiveFloat = 1.0
    """Exponent of the polynomial schedule."""
    scheduler_end: FractionBelowOne = 0.1
    """Share of the peak learning rate that the polynomial schedule ends with."""
    validate_every: NonNegative = 1
    """Epochs between validations; 0 for none before the end."""
    validation_users: Positive = 320
    """Users of a validation at most."""
    keep_best: bool = False
    """Also rank the validation items, and keep the weights with the best NDCG@10, not the last;
    checkpoints come with the validations then."""
    patience: NonNegative = 0
    """Stop after this many validations without a better NDCG@10; 0 never does."""
    exclude_seen: bool = False
    """Rank the validation items with items of the history left out."""
    checkpoint_every: NonNegative = 0
    """Steps between checkpoints; 0 only at the end of an epoch."""
    workers: NonNegative = 0
    """Processes that prepare batches."""

    @classmethod
    def implied(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of the preset."""
        preset = given["preset"]
        if preset == "auto":
            preset = implied_preset(given["model"])
        if preset == "none":
            return {}
        return {"preset": preset, **preset_settings(preset, given["method"], given)}

    @property
    def index_folder(self) -> Path:
        """Where the index files of codes lie."""
        return Path(self.index) if self.index else self.data

    @property
    def ranked_unseen(self) -> bool:
        """Whether the trained model is ranked with seen items left out, as it will be asked."""
        return self.exclude_seen or not self.keep_best

    @property
    def adapts(self) -> bool:
        """Whether the result is an adapter."""
        return self.tune == "lora" and not self.only_head


@dataclass(frozen=True)
class MergeSettings(Settings):
    """Merge an adapter into its backbone and write a plain Hugging Face folder.

    Example:
        incatalog train merge --run runs/sft --out runs/merged
    """

    run: Path
    """Run folder of `incatalog train sft` or `incatalog train grpo`."""
    out: Path
    """Folder for the merged model."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""
