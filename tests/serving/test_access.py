from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from incatalog.errors import ConfigError
from incatalog.serving.access import Keys, RateLimit, address_of
from incatalog.serving.problems import ApiError

HASH = hashlib.sha256(b"secret").hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected an object"),
        ("{}", "at least one key"),
        ("{", "not a readable JSON file"),
        ({"a": {"sha256": "secret"}}, "key 'a': expected its sha256"),
        ({"a": {"sha256": HASH, "expires": "soon"}}, "expires: expected a date"),
        ({"a": {"sha256": HASH, "rate": "many"}}, "rate as a whole number"),
        ({"a": {"sha256": HASH, "admin": 1}}, "admin as true or false"),
        ({"a": {"sha256": HASH, "role": "x"}}, "no setting 'role'"),
    ],
)  # fmt: skip
def test_broken_files_of_keys_name_what_is_wrong(
    tmp_path: Path, content: Any, message: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        Keys.load(path)


def test_key_is_found_by_its_hash_until_it_expires(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"a": {"sha256": HASH, "expires": "2999-01-01T00:00:00+02:00"}}))
    keys = Keys.load(path)
    assert keys.holder("Bearer secret").name == "a"
    assert keys.holder("bearer  secret").name == "a"
    for header in (None, "", "secret", "Bearer", "Bearer ", f"Bearer {HASH}", "Bearer é"):
        with pytest.raises(ApiError) as refused:
            keys.holder(header)
        assert refused.value.status == 401
    path.write_text(json.dumps({"a": {"sha256": HASH, "expires": "2020-01-01"}}))
    with pytest.raises(ApiError, match="expired"):
        Keys.load(path).holder("Bearer secret")


def test_bucket_fills_up_evenly() -> None:
    now = 0.0
    limit = RateLimit(6, clock=lambda: now)
    for _ in range(6):
        limit.take("a")
    with pytest.raises(ApiError) as refused:
        limit.take("a")
    # Six a minute are one in ten seconds.
    assert refused.value.headers["Retry-After"] == "10"
    limit.take("b")
    now = 9.9
    with pytest.raises(ApiError) as refused:
        limit.take("a")
    assert refused.value.headers["Retry-After"] == "1"
    now = 10.1
    limit.take("a")
    with pytest.raises(ApiError):
        limit.take("a")
    now = 1e6
    for _ in range(6):
        limit.take("a")
    with pytest.raises(ApiError):
        limit.take("a")
    limit.take("c", rate=1)
    with pytest.raises(ApiError, match="more than 1 requests"):
        limit.take("c", rate=1)
    for _ in range(100):
        RateLimit(0).take("a")


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.7", 80), "192.0.2.7"),
        (("::ffff:192.0.2.7", 80), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 80), "2001:db8:1:2::/64"),
        (("testclient", 80), "testclient"),
        (None, "unknown"),
    ],
)
def test_address_of_a_client(client: tuple[str, int] | None, address: str) -> None:
    assert address_of({"type": "http", "client": client}) == address
