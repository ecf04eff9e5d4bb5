from __future__ import annotations

from typing import Any

import pytest

from incatalog.dialogue.render import Renderer
from incatalog.items.tokens import ItemTokens


@pytest.fixture(scope="session")
def renderers(chat_tokenizers: dict[str, Any], titles: tuple[str, ...]) -> dict[str, Renderer]:
    """A renderer of the fifty titles for each chat format."""
    return {
        name: Renderer(tokenizer, ItemTokens.from_titles(titles, tokenizer))
        for name, tokenizer in chat_tokenizers.items()
    }
