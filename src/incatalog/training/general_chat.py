"""General conversations that are mixed into recommendation training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from incatalog.data.conversations import Conversation
from incatalog.dialogue.render import Message, Renderer
from incatalog.dialogue.tasks import first_exchange, fit_turns, general_messages, num_tokens
from incatalog.errors import DataError


@dataclass(frozen=True)
class GeneralChat:
    """General conversations that fit into a sample."""

    conversations: tuple[tuple[Message, ...], ...]  # Whole ones; cut at their end to fit
    lengths: Int64[np.ndarray, " conversations"]  # Tokens of each conversation
    exchanges: tuple[tuple[Message, ...], ...]  # Opening ones that leave room
    cut: int  # Conversations that lost exchanges
    dropped: int  # Conversations of which not even the first exchange fits

    @classmethod
    def fit(
        cls, conversations: Sequence[Conversation], renderer: Renderer, max_length: int, path: Path
    ) -> GeneralChat:
        """Cuts conversations to ``max_length`` tokens, by whole exchanges."""
        kept, exchanges, lengths, cut = [], [], [], 0
        for conversation in conversations:
            messages, removed = fit_turns(renderer, general_messages(conversation), max_length)
            if not messages:
                continue
            kept.append(messages)
            lengths.append(num_tokens(renderer, messages))
            cut += removed > 0
            exchange = first_exchange(conversation)
            if num_tokens(renderer, exchange) <= max_length // 2:
                exchanges.append(exchange)
        if not exchanges:
            raise DataError.at(
                path,
                f"none of {len(conversations)} conversations opens with an exchange of at most "
                f"{max_length // 2} tokens; raise --max-length, or pass shorter conversations",
            )
        dropped = len(conversations) - len(kept)
        return cls(tuple(kept), np.array(lengths), tuple(exchanges), cut, dropped)
