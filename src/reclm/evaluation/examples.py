"""Examples of a report: who said what, in turns of text and marked items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reclm.data.catalog import Catalog
from reclm.data.interactions import Histories

_SHOWN_HISTORY = 10


def conversation_example(record: Mapping[str, Any], run: str, k: int) -> dict[str, Any]:
    """A conversation of three rounds.

    Args:
        record: A line of ``conversations.jsonl``.
        run: Name of the run.
        k: Items asked for.
    """
    answer = []
    for piece in record["recommendation"]:
        if "text" in piece:
            answer.append(_text(piece["text"]))
        else:
            answer.append(_item(piece["title"], piece["item"], record["target"]))
    history = " → ".join(record["history"][-_SHOWN_HISTORY:])
    turns = [
        _turn("user", _text(record["example"]["question"])),
        _turn("assistant", _text(record["example"]["answer"])),
        _turn("user", _text(f"[asks for {k} items after: {history}]")),
        _turn("assistant", *answer),
        _turn("user", _text(record["question"])),
        _turn("assistant", _text(record["reply"])),
    ]
    return {"run": run, "user_id": record["user_id"], "turns": turns}


def recommendation_example(
    row: Mapping[str, Any], run: str, catalog: Catalog | None, histories: Histories | None
) -> dict[str, Any]:
    """What was recommended to a user.

    Args:
        row: A row of ``users.parquet``.
        run: Name of the run.
        catalog: Gives titles to ids, where the data is still at hand.
        histories: Gives the end of the history.
    """
    parts = []
    for place, (name, item) in enumerate(zip(row["named"], row["items"], strict=True), start=1):
        parts += [_text(f"{place}. "), _item(name, item, row["target"]), _text("\n")]
    asked = f"[{row['history_length']} items]"
    if catalog is not None and histories is not None and row["user_id"] in histories.user_ids:
        user = histories.user_ids.index(row["user_id"])
        seen = histories.history(user)[: row["history_length"]].tolist()[-_SHOWN_HISTORY:]
        shown = " → ".join(catalog.item(item).title for item in seen)
        asked = f"[{row['history_length']} items, the last of them: {shown}]"
    turns = [_turn("user", _text(asked)), _turn("assistant", *parts[:-1])]
    return {"run": run, "user_id": row["user_id"], "turns": turns}


def _turn(role: str, *parts: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "parts": parts}


def _text(text: str) -> dict[str, str]:
    return {"kind": "text", "text": text}


def _item(title: str, item_id: str | None, target: str) -> dict[str, str]:
    kind = "outside" if item_id is None else "hit" if item_id == target else "item"
    return {"kind": kind, "text": title}
