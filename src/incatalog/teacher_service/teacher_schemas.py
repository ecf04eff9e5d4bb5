"""Requests and answers of the teacher service as JSON: the published format, and what it lacked.

Fields that the published server has not are optional, and without them a request means what it
means there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from incatalog.data.catalog import Catalog

ItemId = str | int
# Without fail_fast a list of a million wrong entries would be a million error records.
ItemIds = Annotated[list[ItemId], Field(fail_fast=True)]
ItemIdLists = Annotated[list[ItemIds], Field(fail_fast=True)]
Switch = bool | Literal[0, 1]


class TeacherRequest(BaseModel):
    """What all questions have in common; a row is one user."""

    model_config = ConfigDict(strict=True, extra="forbid")

    item_lists: ItemIdLists = Field(
        description="History of each row, oldest first, ids as in the catalog. The newest items "
        "that fit the network's window are scored. Leading `[PAD]` is dropped."
    )
    item_lengths: Annotated[list[int], Field(fail_fast=True)] | None = Field(
        None, description="Items of each history, with or without its padding; checked if given."
    )
    users: Annotated[list[str | int | None], Field(fail_fast=True)] | None = Field(
        None, description="A name for each row. The answer does not depend on it."
    )
    immediately: Switch = Field(
        0, description="1: answer as soon as the network is free; 0: wait for others to join."
    )
    catalog: str | None = Field(
        None, description="Fingerprint of the client's catalog; 409 if the server's is another."
    )


class FilteredRequest(TeacherRequest):
    """A question about items that can be filtered."""

    target_category: Annotated[list[str | None], Field(fail_fast=True)] | None = Field(
        None,
        description="For each row `+C` (only category C), `-C` (all but category C) or null.",
    )
    excluded_item_lists: Annotated[list[ItemIds | None], Field(fail_fast=True)] | None = Field(
        None,
        description="For each row items never to answer, or null. Not in the published format.",
    )


class InferenceRequest(FilteredRequest):
    """Which items are best after each history?"""

    k: int = Field(description="Items to answer for each row, from 1 to the server's limit.", ge=1)
    candidate_item_lists: Annotated[list[ItemIds | None], Field(fail_fast=True)] | None = Field(
        None, description="For each row the only items that may be answered, or null for all."
    )
    exclude_seen: Switch | None = Field(
        None,
        description="Whether items of the history may not be answered. Null: so without a "
        "candidate list, not so with one. Not in the published format.",
    )


class RankingRequest(FilteredRequest):
    """Where do candidates stand in the order of the whole catalog?"""

    candidate_item_lists: ItemIdLists = Field(
        description="For each row the items to rank; may repeat or be empty."
    )
    exclude_seen: Switch = Field(
        0, description="Leave items of the history out of the order. Not in the published format."
    )


class ScoresRequest(TeacherRequest):
    """How high does every item score after each history? Not in the published format."""


class InferenceAnswer(BaseModel):
    """The best items of each row."""

    inference: list[list[str]] = Field(
        description="Item ids of each row, best first; fewer than k where fewer are left."
    )


class RankingAnswer(BaseModel):
    """Ranks of each row's candidates."""

    ranking: list[list[int | None]] = Field(
        description="For each candidate how many items stand before it, 0 for the best; null for "
        "a candidate that is filtered out."
    )


class TeacherInfo(BaseModel):
    """Who answers here."""

    name: str = Field(description="Name of the catalog.")
    items: int = Field(description="Items of the catalog.")
    catalog: str = Field(description="Fingerprint of the catalog: ids and titles in their order.")
    teacher: str = Field(description="Fingerprint of the network's weights.")
    window: int = Field(description="Newest items of a history that are scored.")
    max_k: int = Field(description="Items a row may ask for.")
    max_rows: int = Field(description="Rows a request may hold.")
    max_scores: int = Field(description="Scores an answer may hold.")
    max_body: int = Field(description="Bytes a request may have.")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="One line: the field, what was found, what was expected.")


def inference_examples(catalog: Catalog) -> dict[str, Any]:
    """Of `/inference`."""
    ids = [item.item_id for item in catalog.items]
    published = {
        "users": ["u1"],
        "item_lists": [ids[:3]],
        "item_lengths": [len(ids[:3])],
        "k": 10,
        "immediately": 1,
    }
    among = {"item_lists": [ids[:2]], "k": 2, "candidate_item_lists": [ids[-4:]]}
    examples = {
        "published": {"summary": "As the published client asks", "value": published},
        "candidates": {"summary": "Among candidates", "value": among},
    }
    if catalog.categories:
        name = catalog.categories[0]
        rows = {
            "item_lists": [ids[:1], ids[:2]],
            "k": 5,
            "target_category": [f"+{name}", f"-{name}"],
        }
        examples["categories"] = {"summary": "One category, and all but it", "value": rows}
    return examples


def ranking_examples(catalog: Catalog) -> dict[str, Any]:
    """Of `/ranking`."""
    ids = [item.item_id for item in catalog.items]
    value = {
        "users": ["u1"],
        "item_lists": [ids[:3]],
        "item_lengths": [len(ids[:3])],
        "candidate_item_lists": [ids[-3:]],
        "immediately": 1,
    }
    return {"published": {"summary": "As the published client asks", "value": value}}


def scores_examples(catalog: Catalog) -> dict[str, Any]:
    """Of `/scores`."""
    value = {"item_lists": [[catalog.items[0].item_id]], "catalog": catalog.fingerprint}
    return {"scores": {"summary": "One history", "value": value}}
