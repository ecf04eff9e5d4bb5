from __future__ import annotations

from pathlib import Path

import pytest

from incatalog.errors import ConfigError
from incatalog.web.service_key import KEY_VARIABLE, service_key


def test_a_file_goes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert service_key(None) == ""
    monkeypatch.setenv(KEY_VARIABLE, " from-the-environment ")
    assert service_key(None) == "from-the-environment"
    (tmp_path / "key").write_text("from-a-file\n")
    assert service_key(tmp_path / "key") == "from-a-file"


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("one\ntwo\n", "2 lines")])
def test_a_file_without_one_key_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match=f"^--key-file .*: found {found}; expected one key"):
        service_key(tmp_path / "key")
