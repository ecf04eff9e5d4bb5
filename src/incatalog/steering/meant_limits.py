"""What limits mean where they are denied: "nothing after 1970", "I can't spend more than 20"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from incatalog.data.where import Condition
from incatalog.steering.bounds import MeasuredFields, Said
from incatalog.steering.stems import words_of

# Words that may stand between a denial and the limit that it denies.
_CARRIERS = {
    "priced", "price", "prices", "made", "released", "published", "produced", "shot", "dated",
    "sold", "starting", "running", "lasting", "long",
}  # fmt: skip
_MOST_YEARS = 200


def as_meant(
    said: Sequence[Said], lower: str, refused: Sequence[tuple[int, int, int]], of: MeasuredFields
) -> tuple[list[Said], list[tuple[int, int]]]:
    """Limits as a text means them, and where it says them: those that it denies are turned around.

    Truths stay as they are: whether they are denied does not depend on what stands before them.

    Args:
        said: The limits, each end of a range for itself.
        lower: The text in lower case.
        refused: What it denies, as :func:`~incatalog.steering.negation.denied` says.
        of: The fields they are about.
    """
    found: list[Said] = []
    spans: list[tuple[int, int]] = []
    for (start, end), group in groupby(said, key=lambda one: (one.start, one.end)):
        ends = list(group)
        if isinstance(ends[0].condition.value, bool):
            found += ends
            continue
        denial = _denial(start, lower, refused)
        found += ends if denial is None else _turned(ends, of)
        spans.append((start if denial is None else denial, end))
    return found, spans


def _denial(start: int, lower: str, refused: Iterable[tuple[int, int, int]]) -> int | None:
    """Where the denial of a limit begins; None if something else is denied, or nothing."""
    for denial, begin, end in refused:
        if begin <= start < end:
            between = words_of(lower[begin:start])
            others = any(word.says and word.text not in _CARRIERS for word in between)
            return None if others else denial
    return None


def _turned(ends: Sequence[Said], of: MeasuredFields) -> Iterator[Said]:
    conditions = [one.condition for one in ends]
    ops = {one.op for one in conditions}
    if len(ends) == 1 and ops <= {"gte", "lte"}:
        yield replace(ends[0], condition=_other_side(conditions[0], of))
        return
    # What lies outside of a range is no range; of years, all that it has are named.
    if conditions[0].field != of.year or of.dated:
        return
    years = [int(str(one.value)) for one in conditions]
    if ops == {"eq"}:
        yield replace(ends[0], condition=replace(conditions[0], op="ne"))
    elif max(years) - min(years) < _MOST_YEARS:
        every = tuple(range(min(years), max(years) + 1))
        yield replace(ends[0], condition=Condition(conditions[0].field, "not_in", every))


def _other_side(condition: Condition, of: MeasuredFields) -> Condition:
    op, value = condition.op, condition.value
    if condition.field == of.year:
        # Years are whole: what is not from 1990 on is until 1989.
        year = int(str(value)) + (-1 if op == "gte" else 1)
        value = str(year) if of.dated else year
    return Condition(condition.field, "lte" if op == "gte" else "gte", value)
