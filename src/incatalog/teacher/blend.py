"""A blend of teachers: a weighted sum of their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.counted import Block, CountedTeacher, Counts, Lists
from incatalog.teacher.selection import ScoringTeacher


@dataclass(frozen=True)
class BlendPart:
    """A teacher in a blend."""

    teacher: ScoringTeacher
    weight: float
    temperature: float
    name: str = ""  # of its folder in the blend's
    sha256: str = ""  # of its numbers there


class BlendTeacher(CountedTeacher):
    """The sum of w_k log_softmax(s_k / T_k) over its parts k.

    A history without items is answered by the popularity of the training items. An item without
    training is judged by the words of its text where words are a part: the other parts give it the
    score of an item they know nothing of, which is 0 for those that count, and the middle score
    (the median) of all trained items for a network.
    """

    kind: ClassVar[str] = "blend"

    def __init__(
        self,
        catalog: Catalog,
        counts: Counts,
        parts: Sequence[BlendPart],
        temperature: float = 1.0,
    ) -> None:
        """Takes the trainings of each item, and at least one part."""
        super().__init__(catalog, counts, temperature)
        if not parts:
            raise TeacherError("blend: found no parts; expected at least one")
        for part in parts:
            numbers = (part.weight, part.temperature)
            if min(numbers) <= 0 or not np.isfinite(numbers).all():
                raise TeacherError(
                    f"blend: found weight {part.weight} and temperature {part.temperature} of "
                    f"{part.name or part.teacher.kind}; expected numbers of more than 0"
                )
        self.parts = tuple(parts)

    @property
    def window(self) -> int:
        """Newest items of a history that one of the parts scores."""
        return max(part.teacher.window for part in self.parts)

    def tensors(self) -> dict[str, np.ndarray]:
        """Counts; the parts have folders of their own."""
        return {"counts": self.counts}

    def options(self) -> dict[str, Any]:
        """Names, weights, temperatures and checksums of the parts."""
        names = ("name", "weight", "temperature", "sha256")
        return {"parts": [{name: getattr(part, name) for name in names} for part in self.parts]}

    @classmethod
    def restored(
        cls,
        catalog: Catalog,
        tensors: dict[str, np.ndarray],
        options: dict[str, Any],
        temperature: float,
    ) -> Self:
        """The blend of what a run folder holds; ``teacher`` of each part is already loaded."""
        return cls(
            catalog,
            tensors["counts"],
            [BlendPart(**part) for part in options["parts"]],
            temperature,
        )

    def _after(self, histories: Lists, left_out: Lists | None) -> Block:
        total = torch.zeros(len(histories), self.num_items, dtype=torch.float64)
        for part in self.parts:
            scores = part_scores(part.teacher, self.counts, histories, left_out)
            total += part.weight * torch.log_softmax(scores / part.temperature, dim=1)
        found: np.ndarray = total.numpy()
        return found


def part_scores(
    part: ScoringTeacher, counts: Counts, histories: Lists, left_out: Lists | None = None
) -> Float[Tensor, "batch items"]:
    """Scores of a part in float64, with a floor for items that a network was not trained on."""
    scores = part.score_block(histories, left_out).cpu().double()
    trained = torch.from_numpy(counts > 0)
    if part.learned and bool(trained.any()) and not bool(trained.all()):
        # A network's scores of such items are what initialisation and other items left there.
        scores[:, ~trained] = scores[:, trained].median(dim=1, keepdim=True).values
    return scores
