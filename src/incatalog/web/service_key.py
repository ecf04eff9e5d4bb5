"""The key by which a command asks a running service."""

from __future__ import annotations

import os
from pathlib import Path

from incatalog.errors import ConfigError
from incatalog.reading import read_text

KEY_VARIABLE = "INCATALOG_API_KEY"
HOW_TO_GIVE = f"give its key with --key-file, or in {KEY_VARIABLE}"


def service_key(file: Path | None) -> str:
    """The key in a file, or else in the environment; empty where there is none.

    Raises:
        ConfigError: The file holds no key.
    """
    if file is None:
        return os.environ.get(KEY_VARIABLE, "").strip()
    key = read_text(file).strip()
    if not key or not key.isascii() or len(key.split()) > 1:
        found = f"{len(key.splitlines())} lines" if key else "nothing"
        raise ConfigError(f"--key-file {file}: found {found}; expected one key")
    return key
