"""Samples that teach what the codes of an item mean, as LC-Rec does (arXiv 2311.09049)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from transformers import PreTrainedTokenizerFast

from incatalog.data.catalog import Catalog
from incatalog.dialogue.render import Message, Renderer
from incatalog.dialogue.tasks import alignment_messages, num_tokens
from incatalog.dialogue.templates import ALIGNMENT_WORDINGS
from incatalog.errors import ConfigError
from incatalog.items.texts import item_texts, text_wording_named

# Tokens that may come about where a text meets what is around it.
_SEAM = 4


@dataclass(frozen=True)
class Alignment:
    """What items are, in text that fits into a sample."""

    texts: tuple[str, ...]  # Title and description of each item row, cut at the end to fit
    titles: tuple[str, ...]  # Title of each item row, as written in prompts
    lengths: Int64[np.ndarray, "wordings items"]  # About the tokens of each sample
    cut: int  # Number of texts that were cut

    @classmethod
    def fit(
        cls,
        catalog: Catalog,
        titles: Sequence[str],
        renderer: Renderer,
        tokenizer: PreTrainedTokenizerFast,
        max_length: int,
    ) -> Alignment:
        """Cuts texts so that no sample exceeds ``max_length`` tokens."""
        bare = [alignment_messages(wording, 0, "", "") for wording in ALIGNMENT_WORDINGS]
        around = np.array([num_tokens(renderer, messages) for messages in bare])
        shown = np.array([wording.shows_text for wording in ALIGNMENT_WORDINGS])
        title_sizes = np.array([len(ends) for ends in _ends(titles, tokenizer)])
        longest = int(title_sizes.argmax())
        room = max_length - int(around.max()) - _SEAM
        if title_sizes[longest] > room:
            raise ConfigError(
                f"--max-length {max_length}: too short to ask what item "
                f"{catalog.item(longest).item_id!r} is called, of {title_sizes[longest]} tokens; "
                "raise it, or leave out --align-ratio"
            )
        texts = list(item_texts(catalog, text_wording_named("td")))
        ends = _ends(texts, tokenizer)
        cut = [row for row, found in enumerate(ends) if len(found) > room]
        for row in cut:
            texts[row] = texts[row][: ends[row][room - 1]]
        sizes = np.minimum([len(found) for found in ends], room)
        lengths = around[:, None] + np.where(shown[:, None], sizes, title_sizes)
        return cls(tuple(texts), tuple(titles), lengths.astype(np.int64), len(cut))

    def messages(self, number: int, row: int) -> tuple[Message, ...]:
        """The sample of a wording, by its number, about an item row."""
        wording = ALIGNMENT_WORDINGS[number]
        return alignment_messages(wording, row, self.texts[row], self.titles[row])


def _ends(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """For each text the character behind each of its tokens."""
    plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    encoded = tokenizer(list(texts), return_offsets_mapping=True, **plain)
    return [[end for _, end in offsets] for offsets in encoded["offset_mapping"]]
