"""Who may ask, and how often: API keys, known by their hashes only, and a bucket for each."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.types import Scope

from incatalog.errors import ConfigError, DataError
from incatalog.reading import parse_json, read_text
from incatalog.serving.problems import ApiError

_HASH = re.compile(r"[0-9a-f]{64}")
# Clients that are remembered; the one that asked longest ago is forgotten, with a full bucket.
_REMEMBERED = 10_000
_SECONDS = 60
_CLIENT_BITS = 64


@dataclass(frozen=True)
class Key:
    """A key that may be used."""

    name: str  # whose it is, for the log and the sessions
    expires: datetime | None = None
    rate: int | None = None  # requests a minute; None for the service's own limit
    admin: bool = False  # whether it may change catalogs


class Keys:
    """The keys of a service, by the SHA-256 of their text in hexadecimal digits.

    Keys are random and long, so that a plain hash suffices: nobody can guess them.
    """

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._keys = dict(keys)

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Reads a JSON file of names and objects with `sha256` and, if wanted, other settings."""
        try:
            found = parse_json(path, read_text(path))
        except DataError as error:
            raise ConfigError(f"--keys {path}: not a readable JSON file") from error
        if not isinstance(found, dict) or not found:
            raise ConfigError(f"--keys {path}: expected an object of at least one key, by its name")
        return cls(dict(_key(path, name, value) for name, value in found.items()))

    def holder(self, authorization: str | None) -> Key:
        """The key in a header; an ApiError (401) if there is no valid one."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise _refusal("no API key; send the header Authorization: Bearer KEY", "no_key")
        digest = hashlib.sha256(secret.strip().encode("utf-8", "replace")).hexdigest()
        # As it is looked up by its hash, the time this takes tells nothing about any key.
        key = self._keys.get(digest)
        if key is None:
            raise _refusal("no such API key", "invalid_api_key")
        if key.expires is not None and key.expires <= datetime.now(UTC):
            raise _refusal("the API key has expired", "expired_api_key")
        return key


class RateLimit:
    """Requests a minute: a bucket for each client, which fills up evenly; 0 for any number."""

    def __init__(
        self, rate: int, clock: Callable[[], float] = time.monotonic, what: str = "requests"
    ) -> None:
        self._rate = rate
        self.what = what  # what is counted, in words
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, rate: int | None = None) -> None:
        """Counts a request; an ApiError (429) if there were too many says when to come back."""
        if not (limit := self.limit(rate)):
            return
        now = self._clock()
        left, since = self._buckets.pop(who, (float(limit), now))
        left = min(limit, left + (now - since) * limit / _SECONDS)
        self._buckets[who] = (max(left - 1, 0) if left >= 1 else left, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        if left < 1:
            raise self.refusal(limit, (1 - left) * _SECONDS / limit)

    def limit(self, rate: int | None) -> int:
        """Requests a minute of one that may have a rate of its own; 0 for any number."""
        return self._rate if rate is None else rate

    def refusal(self, limit: int, seconds: float) -> ApiError:
        """The error (429) that says when to come back."""
        wait = str(math.ceil(seconds))
        message = f"more than {limit} {self.what} a minute; ask again in {wait} s"
        headers = {"Retry-After": wait}
        return ApiError(429, message, code="rate_limit_exceeded", headers=headers)


def address_of(scope: Scope) -> str:
    """Where a request comes from; of IPv6 the network, as a client has all addresses of one."""
    host = (scope.get("client") or ("unknown",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _CLIENT_BITS), strict=False))


def _key(path: Path, name: str, value: Any) -> tuple[str, Key]:
    place = f"--keys {path}: key {name!r}"
    if not isinstance(value, dict) or not _HASH.fullmatch(str(value.get("sha256"))):
        raise ConfigError(f"{place}: expected its sha256, 64 hexadecimal digits")
    if unknown := set(value) - {"sha256", "expires", "rate", "admin"}:
        known = "sha256, expires, rate, admin"
        raise ConfigError(f"{place}: no setting {sorted(unknown)[0]!r}; expected {known}")
    expires, rate, admin = value.get("expires"), value.get("rate"), value.get("admin", False)
    if (rate is not None and (type(rate) is not int or rate < 0)) or type(admin) is not bool:
        raise ConfigError(f"{place}: expected rate as a whole number and admin as true or false")
    end = None
    if expires is not None:
        try:
            end = datetime.fromisoformat(expires)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{place}: expires: expected a date such as 2030-01-31") from error
        end = end if end.tzinfo else end.replace(tzinfo=UTC)
    return value["sha256"], Key(name, end, rate, admin)


def _refusal(message: str, code: str) -> ApiError:
    return ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})
