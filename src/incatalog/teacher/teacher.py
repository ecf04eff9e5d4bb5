"""The `Teacher` protocol, and the client that runs a fitted network in this process."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.row_lists import MaybeRowLists, RowLists, Rows
from incatalog.teacher.sasrec import SasRec, load_network
from incatalog.teacher.selection import ScoringTeacher


class Teacher(Protocol):
    """A recommender that is asked about many histories at once.

    Items are rows of the catalog throughout. Every method raises `TeacherError` where a row is not
    in the catalog, a list does not have one entry for each history, or a history cannot be scored
    (a sequential network needs at least one item), and `CatalogError` for an unknown category.
    """

    @property
    def num_items(self) -> int:
        """Items of the catalog."""

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


class InProcessTeacher(ScoringTeacher):
    """A SASRec network asked directly.

    The other questions of a batch change how float32 products are summed, and with it the order of
    items whose scores are nearly equal. So scores are computed in float64 and rounded to float32:
    an answer depends on its own question alone.
    """

    _needs_history = True

    def __init__(self, network: SasRec, catalog: Catalog, *, exact: bool = True) -> None:
        """Takes the network to evaluation mode; it stays on its device.

        With `exact` a copy computes in float64. Without it the network itself is asked, which is
        faster, and enough for a metric over many histories.
        """
        super().__init__(catalog)
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
    def _score(self, histories: Sequence[Rows]) -> Float[Tensor, "batch items"]:
        items = self._network.pad(histories)
        return self._network.item_scores(self._network.last_hidden(items)).float()


def load_teacher(folder: str | Path, catalog: Catalog, device: str = "auto") -> InProcessTeacher:
    """Loads the network that `incatalog teacher fit` left in its run folder for this catalog."""
    network, fingerprint = load_network(folder, device)
    if fingerprint != catalog.fingerprint:
        raise TeacherError(
            f"{folder}: the teacher was fitted on another catalog than {catalog.name!r} "
            "(items, order or titles differ); pass the data it was fitted on, or fit a new one"
        )
    return InProcessTeacher(network, catalog)
