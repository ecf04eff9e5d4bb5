"""Settings of the commands of `teacher`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import (
    Fraction,
    FractionBelowOne,
    Headings,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    PositiveFraction,
    Settings,
)

TeacherKind = Literal["sasrec", "gru4rec", "knn", "ease", "words", "popularity", "blend"]
WORDINGS = ("t", "td", "tc", "tdc")
# The settings of each kind that counts, and of a blend alone.
_COUNTING = {
    "knn": ("newest", "recency", "window", "decay", "backward", "row_power", "power"),
    "ease": ("newest", "recency", "regularisation", "ease_window", "max_items"),
    "words": ("newest", "recency", "wording", "vectors"),
    "popularity": (),
    "blend": ("sasrec",),
}


@dataclass(frozen=True)
class TeacherFitSettings(Settings):
    """Fit a teacher: a SASRec network (arXiv 1808.09781), counts of pairs, words, or a blend.

    Settings of kinds other than the fitted one are not read. Where several values are given for
    one of a counting kind, the validation items choose.

    Example:
        incatalog teacher fit --data data --out runs/teacher --exclude-seen
        incatalog teacher fit --data data --out runs/blend --kind blend --exclude-seen
    """

    headings: ClassVar[Headings] = {
        "data": "data out kind sasrec",
        "network (sasrec, gru4rec)": (
            "max_length hidden inner layers heads dropout unseen_only sequences"
        ),
        "optimiser": (
            "batch_size learning_rate warmup_steps plateau_factor plateau_patience weight_decay "
            "epochs patience max_minutes"
        ),
        "validation": "validate_every exclude_seen",
        "counting (knn, ease, words)": (
            "newest recency window decay backward row_power power regularisation ease_window "
            "max_items wording vectors"
        ),
        "run": "device seed",
    }

    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder."""
    kind: TeacherKind = "sasrec"
    """sasrec: a network that attends; gru4rec: a recurrent one (arXiv 1511.06939); knn: items that
    followed one another; ease: ridge regression in closed form (arXiv 1905.03375); words: likeness
    of texts; popularity; blend: sasrec, knn, ease (up to 6,000 items) and words, those of them that
    help on the validation items."""
    max_length: Positive = 50
    """Newest items of a history the network sees."""
    hidden: Positive = 64
    """Width of item embeddings and blocks."""
    inner: Positive = 256
    """Width of the feed-forward layers."""
    layers: Positive = 2
    """Number of blocks."""
    heads: Positive = 1
    """Number of attention heads."""
    unseen_only: bool = False
    """Leave the items that a history shows out of the softmax behind it, for answers that leave out
    what was seen (as is usual): it learns more of the rest, and nothing of who takes an item twice.
    For sasrec and gru4rec."""
    dropout: FractionBelowOne = 0.3
    """Dropout of embeddings, attention and feed-forward layers."""
    sequences: Literal["windows", "interactions"] = "windows"
    """Sequences it trains on: windows (histories are cut into pieces, in which every item is
    predicted from those before it), or interactions (every item of a history is a sequence of its
    own, predicted from the newest `max_length` items before it, as in UniRec)."""
    batch_size: Positive = 128
    """Sequences per step."""
    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate of AdamW."""
    warmup_steps: NonNegative = 50
    """Steps with rising learning rate."""
    plateau_factor: PositiveFraction = 1.0
    """What the learning rate is multiplied by after more than `plateau_patience` validations
    without a better NDCG@10; 1 leaves it as it is."""
    plateau_patience: NonNegative = 1
    """Validations without a better NDCG@10 that leave the learning rate as it is."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    epochs: Positive = 100
    """Epochs at most."""
    patience: Positive = 6
    """Stop after this many validations without a better NDCG@10."""
    validate_every: Positive = 1
    """Epochs between validations."""
    exclude_seen: bool = False
    """Validate with items of the history left out of the ranking."""
    max_minutes: NonNegativeFloat = 0.0
    """Stop after this many minutes with the best weights; 0 for no limit. A run that hits the limit
    is not reproducible to the bit."""
    device: str = "auto"
    """Device to train on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of initialisation, batches and dropout."""
    newest: Positive = 10
    """knn, ease, words: newest items of a history that are scored."""
    recency: tuple[Fraction, ...] = (0.8, 0.6, 0.4, 0.9)
    """knn, ease, words: weight of an item of a history beside the next newer one."""
    window: tuple[Positive, ...] = (10, 20, 5)
    """knn: places between two items of a history that count as a pair, at most."""
    decay: tuple[Fraction, ...] = (0.8, 0.9, 0.6)
    """knn: weight of a pair beside one that is a place nearer."""
    backward: Fraction = 0.5
    """knn: weight of a pair against the order of time."""
    row_power: tuple[NonNegativeFloat, ...] = (0.5, 0.75)
    """knn: power of an item's own pairs that its similarities are divided by: with 1 all items of
    a history say as much, however often they stand elsewhere."""
    power: tuple[NonNegativeFloat, ...] = (0.0, 0.25, 0.5)
    """knn: power of an item's popularity that its similarities are divided by."""
    regularisation: tuple[PositiveFloat, ...] = (100.0, 20.0, 500.0)
    """ease: weight of the ridge."""
    ease_window: tuple[NonNegative, ...] = (20, 0)
    """ease: places of a history that are one training row; 0 for all of it."""
    max_items: Positive = 20_000
    """ease: items of the largest catalog that is fitted; a dense matrix of 20,000 takes 3.2 GB."""
    wording: tuple[str, ...] = ("tc", "t", "tdc")
    """words: text of an item: t for title, d for description, c for categories."""
    vectors: str = ""
    """words: npy file of item vectors to compare instead of texts."""
    sasrec: str = ""
    """blend: run folder of a SASRec to take as a part; one is trained if empty."""

    def unread(self) -> list[str]:
        """Names of the settings that a fit of this kind does not read."""
        counting = {"device", *(name for names in _COUNTING.values() for name in names)}
        if self.kind == "blend":
            return []
        if self.kind in ("sasrec", "gru4rec"):
            unused = {"heads", "inner"} if self.kind == "gru4rec" else set()
            return sorted(counting - {"device"} | unused)
        every = {field.name for field in dataclasses.fields(self)}
        return sorted(
            every - {"data", "out", "kind", "exclude_seen", "seed", *_COUNTING[self.kind]}
        )

    def __post_init__(self) -> None:
        """Refuses what no fit could use.

        Raises:
            ConfigError: Names the flag.
        """
        super().__post_init__()
        known = ", ".join(WORDINGS)
        several = (
            "recency",
            "window",
            "decay",
            "row_power",
            "power",
            "regularisation",
            "ease_window",
        )
        unknown = [one for one in self.wording if one not in WORDINGS]
        none = [name for name in (*several, "wording") if not getattr(self, name)]
        self.refuse_first([
            (bool(none), f"--{'/'.join(none).replace('_', '-')}", "expected at least one value"),
            (bool(unknown), f"--wording {' '.join(unknown)}", f"expected some of {known}"),
            (bool(self.sasrec) and self.kind != "blend",
             "sasrec", "is a part of a blend; add --kind blend, or leave it out"),
            (bool(self.vectors) and self.kind not in ("words", "blend"),
             "vectors", "are compared by words; add --kind words, or leave it out"),
        ])  # fmt: skip


@dataclass(frozen=True)
class TeacherBlendSettings(Settings):
    """Join fitted teachers into one, weighed on the validation items.

    Example:
        incatalog teacher blend runs/teacher runs/knn --data data --out runs/blend
    """

    runs: tuple[str, ...]
    """Run folders of the teachers."""
    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder; the teachers are copied into it."""
    exclude_seen: bool = False
    """Validate with items of the history left out of the ranking."""
    device: str = "auto"
    """Device networks run on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of the choice of users to weigh with, where there are too many."""


@dataclass(frozen=True)
class ImportUnirecSettings(Settings):
    """Import a SASRec teacher that UniRec trained.

    Example:
        incatalog teacher import-unirec --weights SASRec.pth --data data --out runs/teacher
    """

    weights: Path
    """UniRec's checkpoint (.pth, read without running code), or .safetensors."""
    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder."""
    item_numbers: str = "row"
    """Numbers of the items in the weights: row (as `incatalog data to-unirec` gives them),
    appearance (by first appearance in sequential.jsonl, as RecLM's preprocessing does), or a JSON
    or TSV file of item ids and numbers."""
    heads: NonNegative = 0
    """Attention heads; 0 takes the checkpoint's setting, 2 if it has none."""
    activation: str = ""
    """Function between the feed-forward layers (gelu, relu, swish, tanh, sigmoid); empty takes the
    checkpoint's setting, gelu if it has none."""
    norm_eps: float = 0.0
    """Term that keeps layer norms from dividing by zero; 0 takes the checkpoint's setting, 1e-12 if
    it has none."""
    exclude_seen: bool = False
    """Validate with items of the history left out of the ranking."""
    device: str = "auto"
    """Device of the validation; auto takes CUDA where there is one."""
