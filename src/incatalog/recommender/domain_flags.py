"""Flags that name catalogs, or say something of each of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from incatalog.errors import ConfigError


def domain_folders(pairs: Sequence[str]) -> dict[str, Path]:
    """The folders of the catalogs that ``--domain NAME=FOLDER`` names.

    Raises:
        ConfigError: One is no such pair, is given twice, or is no folder.
    """
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--domain {pair}: expected NAME=FOLDER")
        if name in found:
            raise ConfigError(f"--domain {name}: given twice")
        if not Path(folder).is_dir():
            raise ConfigError(f"--domain {name}: no such folder: {folder}")
        found[name] = Path(folder)
    return found


def by_domain(flag: str, values: Sequence[str], domains: Sequence[str]) -> dict[str, str]:
    """What a flag says of each catalog, as ``NAME=…``; a value alone is that of the only one.

    Raises:
        ConfigError: There are several catalogs and none is named, or one is named twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or name not in domains:
            # The address of a teacher may have an equals sign too.
            if len(domains) > 1:
                why = f"expected NAME=… with one of the domains {', '.join(domains)}"
                raise ConfigError(f"{flag} {value}: {why}")
            [name], rest = domains, value
        if name in found:
            raise ConfigError(f"{flag} {value}: given twice for domain {name}")
        found[name] = rest
    return found
