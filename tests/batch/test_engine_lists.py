from __future__ import annotations

from pathlib import Path

import pytest

from incatalog.batch.list_makers import open_lists
from incatalog.batch.settings import BatchSettings
from incatalog.data.catalog import Catalog
from incatalog.data.where import EVERYTHING
from incatalog.errors import ConfigError

FREE = {"exclude": [], "categories": [], "where": EVERYTHING}


def test_lists_that_are_searched_are_refused_before_vllm_starts(
    model: Path, films: Catalog
) -> None:
    settings = BatchSettings(
        model=str(model),
        histories=Path("h"),
        out=Path("o"),
        device="cpu",
        engine="vllm",
        decode="list",
    )
    with pytest.raises(ConfigError, match="ask with item_decode token"):
        open_lists(settings, "trained", films, FREE)
