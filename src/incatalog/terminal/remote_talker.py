"""A running service that answers in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rapidfuzz import fuzz, utils

from incatalog.data.where import Where
from incatalog.errors import CatalogError, ConfigError, ServiceError, require
from incatalog.recommender.item_names import typed_forms
from incatalog.terminal.talker import Continued, Found, Piece, ShownItem, SpokenTurn

if TYPE_CHECKING:
    import httpx

_CONNECT_SECONDS = 5.0
_SHOWN, _ASKED = 3, 50
_CERTAIN = 100.0
_SHOWN_CHARACTERS = 200


class RemoteTalker:
    """Answers with what `incatalog serve` says at an address.

    Raises:
        ConfigError: The address is none, or the service has no such catalog.
        ServiceError: Nobody answers there, or something else does.
    """

    def __init__(self, url: str, domain: str = "", key: str = "", **how: Any) -> None:
        """Takes the catalog to begin with, an API key, and fields of requests."""
        httpx = require("httpx", extra="serve")
        self._url, self._how = url.rstrip("/"), how
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        # A proxy from the environment would rarely find a service in the same network.
        how_asked: Any = {"headers": headers, "timeout": timeout, "trust_env": False}
        self._client: httpx.Client = httpx.Client(**how_asked)
        models = self._get("v1/models").get("data")
        if not isinstance(models, list) or not models or "id" not in models[0]:
            raise self._strange("v1/models")
        self._model, self._trained = str(models[0]["id"]), models[0].get("trained", True)
        found = [str(one["domain"]) for one in models if one.get("domain")]
        if domain and domain not in found:
            raise ConfigError(f"--domain {domain}: {url} has {', '.join(found) or 'none'}")
        self._domains = tuple(sorted(found, key=lambda name: name != domain))

    @property
    def described(self) -> str:
        """The model and where it is."""
        kind = "" if self._trained else ", a chat model that was never trained on these catalogs"
        return f"{self._model} at {self._url}{kind}"

    @property
    def domains(self) -> Sequence[str]:
        """Names of the catalogs."""
        return self._domains

    def stream(self, asked: Continued) -> Iterator[Piece]:
        """The answer, in pieces."""
        body: dict[str, Any] = {"model": self._model, "stream": True, **self._how}
        body["messages"] = list(map(_message, asked.turns))
        if asked.domain is not None:
            body |= {"domain": asked.domain, "history": list(asked.history)}
        if asked.domain is not None and asked.where:
            body["where"] = asked.where.as_mapping()
        httpx = require("httpx", extra="serve")
        try:
            with self._client.stream(
                "POST", f"{self._url}/v1/chat/completions", json=body
            ) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._refused(response)
                for line in response.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        yield from self._pieces(json.loads(line.removeprefix("data: ")))
        except httpx.TransportError as error:
            raise self._gone(error) from error

    def find(self, domain: str, name: str) -> list[Found]:
        """Items that a name may have meant."""
        place = f"v1/catalogs/{quote(domain, safe='')}/items"
        own = self._get(f"{place}/{quote(name, safe='')}", missing={}) if name else {}
        if "title" in own:
            return [Found(str(own["id"]), str(own["title"]), _CERTAIN)]
        asked = {"search": name, "limit": str(_ASKED)}
        items = self._get(place, asked).get("items", [])
        found = [Found(str(i["id"]), str(i["title"]), _likeness(name, i)) for i in items]
        return sorted(found, key=lambda one: -one.likeness)[:_SHOWN]

    def check(self, domain: str, where: Where) -> None:
        """Leaves it to the service, which answers a question with what is wrong."""

    def _pieces(self, chunk: Mapping[str, Any]) -> Iterator[Piece]:
        if "error" in chunk:
            raise ServiceError(f"{self._url}: {_one_line(chunk['error'])}")
        choices = chunk.get("choices") or [{}]
        text = (choices[0].get("delta") or {}).get("content") or ""
        items = chunk.get("items") or []
        # A chunk with an item holds its title, and at most what stands around it.
        if len(items) == 1 and text:
            before, title, after = text.partition(str(items[0].get("title", "")))
            if title:
                yield from (piece for piece in (before, _item(items[0]), after) if piece)
                return
        if text:
            yield text

    def _get(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        missing: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What lies at a path; ``missing``, where that is given and nothing does."""
        httpx = require("httpx", extra="serve")
        try:
            response = self._client.get(f"{self._url}/{path}", params=params)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigError(
                f"--url {self._url}: not an address ({error}); expected http://HOST:PORT"
            ) from error
        except httpx.TransportError as error:
            raise self._gone(error) from error
        if response.status_code == 404 and missing is not None:
            return missing
        if response.status_code != 200:
            raise self._refused(response)
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._strange(path)
        return found

    def _gone(self, error: Exception) -> ServiceError:
        said = str(error) or type(error).__name__
        return ServiceError(f"{self._url}: no answer ({said}); is `incatalog serve` running there?")

    def _strange(self, path: str) -> ServiceError:
        return ServiceError(
            f"{self._url}/{path}: no answer of `incatalog serve`; expected its address"
        )

    def _refused(self, response: httpx.Response) -> ServiceError | CatalogError:
        try:
            said = _one_line(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            said = response.text[:_SHOWN_CHARACTERS]
        hint = "; give its key with --key-file" if response.status_code == 401 else ""
        return ServiceError(f"{self._url}: {response.status_code} {said}{hint}")


def _one_line(error: Any) -> str:
    return " ".join(str(error["message"]).split())


def _item(found: Mapping[str, Any]) -> ShownItem:
    """An item of an answer, with what the service says of it."""
    categories = ", ".join(map(str, found.get("categories") or ()))
    facts = [("categories", categories)] if categories else []
    facts += [
        (str(one.get("label")), str(one.get("shown"))) for one in found.get("attributes") or ()
    ]
    score, reason = float(found.get("score") or 0.0), found.get("reason")
    return ShownItem(str(found["id"]), str(found["title"]), score, reason, tuple(facts))


def _likeness(name: str, item: Mapping[str, Any]) -> float:
    if name == item["id"] or typed_forms(name)[0] in typed_forms(str(item["title"])):
        return _CERTAIN
    found = fuzz.WRatio(name, str(item["title"]), processor=utils.default_process)
    return min(found, _CERTAIN - 1)


def _message(turn: SpokenTurn) -> dict[str, Any]:
    """A turn as a request has it, with the places of its items."""
    text, items = "", []
    for piece in turn.pieces:
        said = piece if isinstance(piece, str) else piece.title
        if isinstance(piece, ShownItem):
            items.append({"id": piece.item_id, "start": len(text), "end": len(text) + len(said)})
        text += said
    message: dict[str, Any] = {"role": turn.role, "content": text}
    return message | ({"items": items} if items else {})
