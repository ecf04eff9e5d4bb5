"""What one request to vLLM asks of the items: `extra_args={"incatalog": {...}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float64

from incatalog.data.where import EVERYTHING, Where
from incatalog.errors import ConfigError
from incatalog.vllm.answer_terms import TERMS, AnswerTerms

KEY = "incatalog"
_PLACE = f'extra_args["{KEY}"]'
_NUMBERS = (int, float)


def wrong(field: str, found: Any, expected: str) -> ConfigError:
    """The error of a field of the request."""
    shown = repr(found)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return ConfigError(f"{_PLACE}: {field}: found {shown}; expected {expected}")


@dataclass(frozen=True, eq=False)
class RequestWeights:
    """What weighs the items of an answer, beside the model.

    Attributes:
        log_weights: By item row, such as a teacher's log-probabilities after the user's history; in
            JSON null is minus infinity, which excludes an item.
        share: How much they count, from 0 to 1; the model counts with the rest.
        log_factors: By item row, logarithms of factors; they stand for those of the catalog too.
        boost: Factors by item id, beside those of the catalog.
    """

    log_weights: Float64[np.ndarray, " items"] | None
    share: float
    log_factors: Float64[np.ndarray, " items"] | None
    boost: Mapping[str, float]

    @classmethod
    def parse(cls, given: Any) -> RequestWeights:
        """Weights as the request has them."""
        found = _object("weights", given, {field.name for field in fields(cls)})
        share = found.get("share", 0.0)
        if type(share) not in _NUMBERS or not 0 <= share <= 1:
            raise wrong("weights: share", share, "a number from 0 to 1")
        log_weights = _numbers("log_weights", found.get("log_weights"))
        if share and log_weights is None:
            raise wrong("weights: share", share, "log_weights beside it, one an item")
        boost = found.get("boost", {})
        plain = isinstance(boost, Mapping) and all(type(n) in _NUMBERS for n in boost.values())
        if not plain:
            raise wrong("weights: boost", boost, "factors by item id")
        log_factors = _numbers("log_factors", found.get("log_factors"))
        return cls(log_weights, float(share), log_factors, boost)


@dataclass(frozen=True, eq=False)
class ItemRequest:
    """What an answer may name, and in which form.

    Attributes:
        k: Answer with a list of so many items; None lets the model write as it likes.
        max_items: Items at most where there is no `k`; 0 for text alone, None for no limit.
        domain: The catalog; None for the model's own.
        catalog_version: Fingerprint of the catalog that is meant, or a version that was kept
            for this engine; None for the model's own as it is.
        exclude: Ids that may not be named.
        categories: Name items of these alone; all if empty.
        where: Conditions that every item fulfils.
        excluded_rows: Item rows that may not be named.
        weights: What weighs the items; None for the model alone.
        terms: In place of all others, what a service of this package says of an answer.
    """

    k: int | None = None
    max_items: int | None = None
    domain: str | None = None
    catalog_version: str | None = None
    exclude: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    where: Where = EVERYTHING
    excluded_rows: tuple[int, ...] = ()
    weights: RequestWeights | None = None
    terms: AnswerTerms | None = None

    @classmethod
    def parse(cls, given: Any) -> ItemRequest:
        """A request as vLLM hands it on; None asks for text with any items.

        Over HTTP vLLM takes no objects there, so it may be the JSON text of one.

        Raises:
            ConfigError: A field is unknown, or its value cannot be used.
        """
        if given is None:
            return cls()
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except ValueError as error:
                raise wrong(KEY, given, f"the JSON text of an object ({error})") from error
        found = _object("", given, {field.name for field in fields(cls)})
        found = {name: value for name, value in found.items() if value is not None}
        if TERMS in found:
            if len(found) > 1:
                raise wrong(TERMS, min(found.keys() - {TERMS}), "nothing beside them")
            return cls(terms=AnswerTerms.from_args(found[TERMS]))
        for name, least in (("k", 1), ("max_items", 0)):
            number = found.get(name, least)
            if type(number) is not int or number < least:
                raise wrong(name, number, f"a whole number of at least {least}")
        if "k" in found and "max_items" in found:
            raise wrong("max_items", found["max_items"], "none beside k, which says it already")
        for name in ("domain", "catalog_version"):
            if not isinstance(found.get(name, ""), str):
                raise wrong(name, found[name], "text")
        known: dict[str, Any] = dict(found)
        for name, kind, what in (
            ("exclude", str, "a list of item ids"),
            ("categories", str, "a list of names"),
            ("excluded_rows", int, "a list of item rows"),
        ):
            values = found.get(name, ())
            if not isinstance(values, list | tuple) or any(type(one) is not kind for one in values):
                raise wrong(name, values, what)
            known[name] = tuple(values)
        if "where" in found:
            known["where"] = Where.parse(found["where"], f"{_PLACE}: where")
        if "weights" in found:
            known["weights"] = RequestWeights.parse(found["weights"])
        return cls(**known)


def _object(field: str, given: Any, known: set[str]) -> Mapping[str, Any]:
    place = f"{field}: " if field else ""
    if not isinstance(given, Mapping):
        raise wrong(field or KEY, given, f"an object with some of {', '.join(sorted(known))}")
    for name in given:
        if name not in known:
            raise wrong(f"{place}{name}", given[name], f"one of {', '.join(sorted(known))}")
    return given


def _numbers(field: str, given: Any) -> Float64[np.ndarray, " items"] | None:
    if given is None:
        return None
    if not isinstance(given, list | tuple):
        raise wrong(f"weights: {field}", given, "a list of numbers, one an item")
    for number in given:
        if number is not None and type(number) not in _NUMBERS:
            raise wrong(f"weights: {field}", number, "numbers, or null for an excluded item")
    return np.array([-np.inf if one is None else one for one in given], dtype=np.float64)
