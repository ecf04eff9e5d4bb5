"""How many items answers are scored to: not many more than there are."""

from __future__ import annotations

from incatalog.data.catalog import Catalog
from incatalog.errors import ConfigError

# So many may always be asked for; of a small catalog they are all found.
_ALWAYS = 1000


def check_cutoff(k: int, catalog: Catalog) -> None:
    """Makes sure that answers of so many items can be, before memory is taken for them.

    Raises:
        ConfigError: The catalog has far fewer items.
    """
    most = max(catalog.num_live, _ALWAYS)
    if k > most:
        raise ConfigError(
            f"--k: found {k}; expected at most {most}, as the catalog {catalog.name} has "
            f"{catalog.num_live} items"
        )
