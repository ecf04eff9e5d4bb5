"""The `Teacher` protocol, the teacher that asks a fitted network, and loading one of any kind."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.fitting import UNREADABLE
from incatalog.teacher.blend import BlendTeacher
from incatalog.teacher.counted import CountedTeacher
from incatalog.teacher.ease import Ease
from incatalog.teacher.gru4rec import NETWORKS
from incatalog.teacher.knn import ItemKnn
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.row_lists import MaybeRowLists, RowLists, Rows
from incatalog.teacher.sasrec import TEACHER_FILE, SasRec, load_network
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher.teacher_folder import (
    PARTS,
    damaged,
    numbers_checksum,
    read_description,
    read_tensors,
)
from incatalog.teacher.words import WordsTeacher

_KINDS: dict[str, type[CountedTeacher]] = {
    one.kind: one for one in (ItemKnn, Ease, WordsTeacher, Popularity, BlendTeacher)
}


class Teacher(Protocol):
    """A recommender that is asked about many histories at once.

    Items are rows of the catalog throughout. Every method raises `TeacherError` where a row is not
    in the catalog, a list does not have one entry for each history, or a history cannot be scored
    (a sequential network needs at least one item), and `CatalogError` for an unknown category.
    """

    @property
    def num_items(self) -> int:
        """Items of the catalog."""

    @property
    def temperature(self) -> float:
        """What its scores are divided by to become log-probabilities.

        Fitted so that the mean -log p of validation items is least; 1.0 where it was not.
        """

    def top_k(
        self,
        histories: RowLists,
        k: int,
        *,
        candidates: MaybeRowLists | None = None,
        excluded: MaybeRowLists | None = None,
        categories: Sequence[str | None] | None = None,
        exclude_seen: bool = True,
    ) -> Int64[np.ndarray, "batch k"]:
        """The best items after each history.

        Args:
            histories: Rows of each history, oldest first; a network sees the newest that fit.
            k: Items to answer, at least 1.
            candidates: For each history the only rows that may be answered; None for all.
            excluded: For each history rows never to answer.
            categories: For each history ``"+NAME"`` to answer from that category only, ``"-NAME"``
                to leave it out, None for either.
            exclude_seen: Never answer an item of the history, even if it is a candidate.

        Returns:
            Rows for each history, best first; -1 fills up where fewer than ``k`` remain.
        """

    def ranking(
        self,
        histories: RowLists,
        candidates: RowLists,
        *,
        excluded: MaybeRowLists | None = None,
        categories: Sequence[str | None] | None = None,
        exclude_seen: bool = False,
    ) -> list[Int64[np.ndarray, " candidates"]]:
        """Rank of each candidate in the order of all items that are not filtered out.

        Args:
            histories: Rows of each history, oldest first.
            candidates: For each history the rows to rank; may repeat or be empty.
            excluded: For each history rows left out of the order.
            categories: As for `top_k`.
            exclude_seen: Leave items of the history out of the order.

        Returns:
            For each history one rank for each candidate, 1 for the best item; -1 for a candidate
            that is filtered out.
        """

    def scores(self, histories: RowLists) -> Float32[np.ndarray, "batch items"]:
        """Scores of all items after each history, without any filter.

        Args:
            histories: Rows of each history, oldest first.

        Returns:
            A score for each row of the catalog; higher is better.
        """

    def log_probabilities(
        self, histories: RowLists, *, left_out: RowLists | None = None
    ) -> Float32[np.ndarray, "batch items"]:
        """Natural logarithms of the probability that each item is the next one.

        That is log_softmax(scores / temperature) over all items of the catalog, without any filter.

        Args:
            histories: Rows of each history, oldest first.
            left_out: For each history the whole training history of the same user. Teachers that
                count answer as if they had not counted it, so that they cannot know an answer of
                their own training by heart; others answer as without it.

        Returns:
            For each history one number for each row of the catalog.
        """


class InProcessTeacher(ScoringTeacher):
    """A SASRec network asked directly.

    The other questions of a batch change how float32 products are summed, and with it the order of
    items whose scores are nearly equal. So scores are computed in float64 and rounded to float32:
    an answer depends on its own question alone.
    """

    kind = "sasrec"
    learned = True
    _needs_history = True

    def __init__(
        self,
        network: SasRec,
        catalog: Catalog,
        *,
        exact: bool = True,
        temperature: float = 1.0,
    ) -> None:
        """Takes the network to evaluation mode; it stays on its device.

        With `exact` a copy computes in float64. Without it the network itself is asked, which is
        faster, and enough for a metric over many histories.
        """
        super().__init__(catalog, temperature)
        if network.sizes.num_items != len(catalog):
            raise TeacherError(
                f"teacher: the network knows {network.sizes.num_items} items; "
                f"the catalog {catalog.name!r} has {len(catalog)}; fit a teacher on this catalog"
            )
        self._network = network.eval()
        # Apple's GPUs have no float64.
        if exact and self.device.type != "mps":
            self._network = copy.deepcopy(network).double()

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._network.item_embedding.weight.device

    @property
    def window(self) -> int:
        """Newest items of a history that are scored."""
        return self._network.sizes.max_length

    @property
    def item_embeddings(self) -> Float32[np.ndarray, "items hidden"]:
        """What the network knows each item by."""
        weight = self._network.item_embedding.weight[1:].detach()
        found: np.ndarray = weight.float().cpu().numpy()
        return found

    @torch.no_grad()
    def score_block(
        self,
        histories: Sequence[Rows],
        left_out: Sequence[Rows] | None = None,  # noqa: ARG002 - a network does not count
    ) -> Float[Tensor, "batch items"]:
        """Scores of the network; see `ScoringTeacher.score_block`."""
        network = self._network
        # Short histories beside a long one would be padded to its length.
        sizes = np.array([min(len(rows), self.window).bit_length() for rows in histories])
        hidden = network.item_embedding.weight.new_empty(len(sizes), network.sizes.hidden)
        for size in np.unique(sizes):
            alike = np.flatnonzero(sizes == size)
            rows = [histories[line] for line in alike.tolist()]
            hidden[alike] = network.last_hidden(network.pad(rows, width=1))
        return network.item_scores(hidden).float()


class RecurrentTeacher(InProcessTeacher):
    """A GRU4Rec network asked directly."""

    kind = "gru4rec"


_NETWORKS = {one.kind: one for one in (InProcessTeacher, RecurrentTeacher)}


def load_teacher(folder: str | Path, catalog: Catalog, device: str = "auto") -> ScoringTeacher:
    """Loads the teacher of any kind that a run folder holds.

    Args:
        folder: What `incatalog teacher fit`, `blend` or `import-unirec` left.
        catalog: The catalog it was fitted on.
        device: Where a network runs.

    Raises:
        TeacherError: No teacher there, a damaged one, or one of another catalog.
        ArtifactError: A file was changed after the run had finished.
    """
    folder = Path(folder)
    description = read_description(folder)
    kind, temperature = description["kind"], description["temperature"]
    if description.get("catalog_fingerprint") != catalog.items_fingerprint:
        raise TeacherError(
            f"{folder}: the teacher was fitted on another catalog than {catalog.name!r} "
            "(items, order or titles differ); pass the data it was fitted on, or fit a new one"
        )
    if kind in NETWORKS:
        network, _ = load_network(folder, device, NETWORKS)
        return _NETWORKS[kind](network, catalog, temperature=temperature)
    if kind not in _KINDS:
        known = ", ".join((*NETWORKS, *_KINDS))
        raise TeacherError(f"{folder / TEACHER_FILE}: kind {kind!r}; expected one of {known}")
    tensors, options = read_tensors(folder, description), description["options"]
    try:
        if kind == BlendTeacher.kind:
            options = {
                "parts": [_loaded(part, folder, catalog, device) for part in options["parts"]]
            }
        return _KINDS[kind].restored(catalog, tensors, options, temperature)
    except UNREADABLE as error:
        raise damaged(folder, error) from error


def _loaded(part: dict[str, Any], blend: Path, catalog: Catalog, device: str) -> dict[str, Any]:
    """A part of a blend with its teacher, which is the one that was blended."""
    folder = blend / PARTS / part["name"]
    teacher = load_teacher(folder, catalog, device)
    if numbers_checksum(folder) != part["sha256"]:
        raise TeacherError(
            f"{folder}: is not the part that the blend was made of; blend again, or restore it"
        )
    return part | {"teacher": teacher}
