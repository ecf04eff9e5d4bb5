"""Requests and answers of the teacher service as JSON: the published format, and what it lacked.

Fields that the published server does not have are optional, and a request without them means what
it means there. The text below a field is its description in `/openapi.json`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from incatalog.data.catalog import Catalog
from incatalog.web.bodies import Form

# Without fail_fast a list of a million wrong entries would be a million error records.
_FIRST = Field(fail_fast=True)
ItemId = str | int
ItemIds = Annotated[list[ItemId], _FIRST]
ItemIdLists = Annotated[list[ItemIds], _FIRST]
OptionalLists = Annotated[list[ItemIds | None], _FIRST] | None
Switch = bool | Literal[0, 1]


class TeacherRequest(Form):
    """What all questions have in common; a row is one user."""

    model_config = ConfigDict(strict=True, extra="forbid")

    item_lists: ItemIdLists
    """History of each row, oldest first, ids as in the catalog. The newest items that fit the
    teacher's window are scored. Leading `[PAD]` is dropped. Empty where `/teacher` allows it."""
    item_lengths: Annotated[list[int], _FIRST] | None = None
    """Items of each history, with or without its padding; checked if given."""
    users: Annotated[list[str | int | None], _FIRST] | None = None
    """A name for each row. The answer does not depend on it."""
    immediately: Switch = 0
    """1: answer as soon as the teacher is free; 0: wait for others to join."""
    catalog: str | None = None
    """Fingerprint of the client's catalog; 409 if the server's is another."""


class FilteredRequest(TeacherRequest):
    """A question about items that can be filtered."""

    target_category: Annotated[list[str | None], _FIRST] | None = None
    """For each row `+C` (only category C), `-C` (all but category C) or null."""
    excluded_item_lists: OptionalLists = None
    """For each row items never to answer, or null. Not in the published format."""


class InferenceRequest(FilteredRequest):
    """Which items are best after each history?"""

    k: Annotated[int, Field(ge=1)]
    """Items to answer for each row, from 1 to the server's limit."""
    candidate_item_lists: OptionalLists = None
    """For each row the only items that may be answered, or null for all."""
    exclude_seen: Switch | None = None
    """Whether items of the history may not be answered. Null: so without a candidate list, not so
    with one. Not in the published format."""


class RankingRequest(FilteredRequest):
    """Where do candidates stand in the order of the whole catalog?"""

    candidate_item_lists: ItemIdLists
    """For each row the items to rank; may repeat or be empty."""
    exclude_seen: Switch = 0
    """Leave items of the history out of the order. Not in the published format."""


class ScoresRequest(TeacherRequest):
    """How high does every item score after each history? Not in the published format."""


class LikelyRequest(TeacherRequest):
    """How likely are the best items after each history? Not in the published format."""

    best: Annotated[int, Field(ge=1)]
    """Items to answer for each row, from 1 to the server's limit, `max_k`. All items of the
    catalog count, those of the history too."""


Question = InferenceRequest | RankingRequest | ScoresRequest | LikelyRequest


class InferenceAnswer(Form):
    """The best items of each row."""

    inference: list[list[str]]
    """Item ids of each row, best first; fewer than k where fewer are left."""


class RankingAnswer(Form):
    """Ranks of each row's candidates."""

    ranking: list[list[int | None]]
    """For each candidate how many items stand before it, 0 for the best; null for a candidate that
    is filtered out."""


class LikelyRow(Form):
    """The likeliest items of one row."""

    items: list[str]
    """Item ids, likeliest first; fewer than asked where the others have no probability."""
    values: list[float]
    """Natural logarithm of the probability of each."""
    rest: float | None
    """Natural logarithm of the probability of all other items together; null if they have none."""


class LikelyAnswer(Form):
    """The likeliest items of each row."""

    log_probabilities: list[LikelyRow]
    """One entry for each row."""


class TeacherInfo(Form):
    """Who answers here."""

    name: str
    """Name of the catalog."""
    items: int
    """Items of the catalog."""
    catalog: str
    """Fingerprint of the catalog: ids and titles in their order."""
    teacher: str
    """Fingerprint of all that its answers depend on."""
    kind: str
    """What it is: `sasrec`, `gru4rec`, `knn`, `ease`, `words`, `popularity` or `blend`."""
    temperature: float
    """What scores are divided by before the softmax that makes them probabilities."""
    window: int
    """Newest items of a history that are scored; 0 where the history does not matter."""
    empty_histories: bool
    """Whether it has an answer to a history without items."""
    counts: bool
    """Whether it counted the training histories, so that it knows their own pairs by heart."""
    max_k: int
    """Items a row may ask for."""
    max_rows: int
    """Rows a request may hold."""
    max_scores: int
    """Scores an answer may hold."""
    max_body: int
    """Bytes a request may have."""


class Refusal(Form):
    """Why there is no answer."""

    detail: str
    """One line: the field, what was found, what was expected."""


def examples(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Of each endpoint, with items of the catalog."""
    ids = [item.item_id for item in catalog.items]
    history = {"users": ["u1"], "item_lists": [ids[:3]], "item_lengths": [len(ids[:3])]}
    published = "As the published client asks"
    among = {"item_lists": [ids[:2]], "k": 2, "candidate_item_lists": [ids[-4:]]}
    best = {
        "published": _example(published, history | {"k": 10, "immediately": 1}),
        "candidates": _example("Among candidates", among),
    }
    if catalog.categories:
        name = catalog.categories[0]
        selections = [f"+{name}", f"-{name}"]
        rows = {"item_lists": [ids[:1], ids[:2]], "k": 5, "target_category": selections}
        best["categories"] = _example("One category, and all but it", rows)
    ranked = history | {"candidate_item_lists": [ids[-3:]], "immediately": 1}
    scored = {"item_lists": [ids[:1]], "catalog": catalog.fingerprint}
    return {
        "inference": best,
        "ranking": {"published": _example(published, ranked)},
        "scores": {"scores": _example("One history", scored)},
        "log_probabilities": {"best": _example("The three likeliest", scored | {"best": 3})},
    }


def _example(summary: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "value": value}
