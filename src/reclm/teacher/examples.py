"""Example requests in the OpenAPI schema of the teacher service; each one gets an answer."""

from __future__ import annotations

from typing import Any

from reclm.data.catalog import Catalog


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
