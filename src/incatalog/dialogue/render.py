"""Messages to token ids, loss mask and item spans, for any tokenizer with a chat template."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from incatalog.data.conversations import Role
from incatalog.dialogue.guard import GuardedTokenizer
from incatalog.dialogue.skeleton import Outline, Skeleton, make_skeleton, takes_system
from incatalog.errors import CatalogError, DataError, TokenizerError
from incatalog.items.tokens import EOI, SOI, ItemTokens
from incatalog.recent import RecentlyUsed

# Skeletons that are kept, of conversations of a few turns and of long ones. Users choose the white
# space around their messages; where there is much of it, there is nothing to be kept.
_SKELETONS_KEPT, _LONG_KEPT = 512, 64
_FEW_TURNS, _MOST_SPACE = 32, 256


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text; whatever it says, it never becomes a control token."""

    text: str


@dataclass(frozen=True, slots=True)
class ItemRef:
    """An item of the catalog, written as its span ``<SOI> … <EOI>``."""

    row: int


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A control token that a wording talks about; it opens or closes no span."""

    token: Literal["<SOI>", "<EOI>"]


Part = Text | ItemRef | ControlToken


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        parts: What is said, in order; adjacent texts are one text.

    Raises:
        DataError: The role is unknown.
    """

    role: Role
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise DataError(f"message has role {self.role!r}; expected system, user or assistant")


class Span(NamedTuple):
    """An item span: tokens `start` (``<SOI>``) to `end` (exclusive, after ``<EOI>``)."""

    start: int
    end: int
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A conversation as a model reads it.

    Attributes:
        input_ids: Token ids.
        loss_mask: True at the tokens an assistant writes: the contents of its turns with the
            tokens that end them, nothing of what the template puts in front.
        spans: Item spans of all turns, in order.
    """

    input_ids: Int32[np.ndarray, " length"]
    loss_mask: Bool[np.ndarray, " length"]
    spans: tuple[Span, ...]


class _Content(NamedTuple):
    """A message's parts as one text with activated tokens, and what those are, in order."""

    text: str
    specials: list[int]
    rows: list[int]


_Skeletons = RecentlyUsed[tuple[tuple[Outline, ...], bool], Skeleton]


class Renderer:
    """Renders conversations for one tokenizer and one catalog.

    The text of a conversation is encoded in one piece, so its ids are those of
    ``tokenizer.apply_chat_template`` wherever the messages spell no control token. What the
    template writes is cached by the roles of the messages. Where a template has no place for a
    system message, its text goes before the first user message, two line breaks between.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, item_tokens: ItemTokens) -> None:
        """Checks that tokenizer and items fit.

        Args:
            tokenizer: A fast tokenizer with a chat template, ``<SOI>`` and ``<EOI>``.
            item_tokens: The catalog's token rows for this very tokenizer.

        Raises:
            TokenizerError: The tokenizer lacks one of these, or the items are another one's.
        """
        item_tokens.check_tokenizer(tokenizer)
        self._tokenizer = tokenizer
        self._guard = GuardedTokenizer(tokenizer)
        for token in (SOI, EOI):
            if not self._guard.protects(token):
                raise TokenizerError(
                    f"the tokenizer lacks the control token {token}; "
                    "load the model with incatalog.model.backbone.load_backbone"
                )
        self._items = item_tokens
        self._control_ids = {SOI: item_tokens.soi_token_id, EOI: item_tokens.eoi_token_id}
        self._control_names = {token: self._guard.name(token) for token in (SOI, EOI)}
        self._empty_span = self._control_names[SOI] + self._control_names[EOI]
        self._takes_system = takes_system(tokenizer)
        self._skeletons: _Skeletons = RecentlyUsed(_SKELETONS_KEPT)
        self._long_skeletons: _Skeletons = RecentlyUsed(_LONG_KEPT)

    def with_items(self, item_tokens: ItemTokens) -> Renderer:
        """The same for another catalog, whose tokens are known to be those of the tokenizer."""
        other = copy.copy(self)
        other._items = item_tokens
        return other

    def conversation(self, messages: Sequence[Message]) -> Rendered:
        """Renders whole turns, for training.

        Raises:
            DataError: There are no messages, the template refuses their order, or a text is not
                Unicode.
            CatalogError: An item row is not in the catalog.
        """
        return self._render(messages, generation_prompt=False)

    def prompt(self, messages: Sequence[Message]) -> Int32[np.ndarray, " length"]:
        """Renders a conversation up to where the assistant's next turn begins.

        Raises:
            DataError: As `conversation`, or the last turn is not a user's.
            CatalogError: An item row is not in the catalog.
        """
        if messages and messages[-1].role != "user":
            raise DataError(
                f"the last message is from the {messages[-1].role}; expected one from the user"
            )
        return self._render(messages, generation_prompt=True).input_ids

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> Rendered:
        messages = self._placed(messages)
        contents = [self._content(message) for message in messages]
        cores = [content.text.strip() for content in contents]
        outlines = tuple(
            _outline(message.role, content.text, core)
            for message, content, core in zip(messages, contents, cores, strict=True)
        )
        skeleton = self._skeleton(outlines, generation_prompt=generation_prompt)

        pieces = [skeleton.texts[0]]
        specials = list(skeleton.specials[0])
        rows = [-1] * len(specials)
        offsets = [0]
        length = len(pieces[0])
        for slot, fixed, inner in zip(
            skeleton.slots, skeleton.texts[1:], skeleton.specials[1:], strict=True
        ):
            length += len(cores[slot])
            offsets.append(length)
            length += len(fixed)
            pieces += (cores[slot], fixed)
            specials += contents[slot].specials
            rows += contents[slot].rows
            specials += inner
            rows += [-1] * len(inner)

        text = "".join(pieces)
        encoding = self._guard.encode(text)
        token_ids = np.array(encoding.ids, dtype=np.int32)
        positions = self._guard.positions(token_ids)
        if token_ids[positions].tolist() != specials:
            raise TokenizerError(
                "the tokenizer turned a message's text into a control token; refusing the message "
                "(its vocabulary spells one of its special tokens in another way)"
            )
        mask = _assistant_tokens(self._guard, text, encoding, skeleton, offsets)
        return self._with_items(token_ids, mask, positions, rows)

    def _placed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Moves a system message into the first user message where the template has no place."""
        if not messages:
            raise DataError("the conversation has no messages; expected at least one")
        if self._takes_system or messages[0].role != "system":
            return messages
        if len(messages) == 1 or messages[1].role != "user":
            raise DataError("a system message is not followed by a user message; add one")
        parts = (*messages[0].parts, Text("\n\n"), *messages[1].parts)
        return [Message("user", parts), *messages[2:]]

    def _content(self, message: Message) -> _Content:
        pieces: list[str] = []
        specials: list[int] = []
        rows: list[int] = []
        for part in message.parts:
            match part:
                case Text(text):
                    pieces.append(text)
                case ItemRef(row):
                    if not 0 <= row < len(self._items):
                        raise CatalogError(
                            f"a message refers to item row {row}; "
                            f"expected 0 to {len(self._items) - 1}"
                        )
                    pieces.append(self._empty_span)
                    specials += self._control_ids.values()
                    rows += (row, -1)
                case ControlToken(token):
                    pieces.append(self._control_names[token])
                    specials.append(self._control_ids[token])
                    rows.append(-1)
        return _Content("".join(pieces), specials, rows)

    def _skeleton(self, outlines: tuple[Outline, ...], *, generation_prompt: bool) -> Skeleton:
        def make() -> Skeleton:
            return make_skeleton(
                self._tokenizer, self._guard, outlines, generation_prompt=generation_prompt
            )

        if sum(len(one.leading) + len(one.trailing) for one in outlines) > _MOST_SPACE:
            return make()
        kept = self._skeletons if len(outlines) <= _FEW_TURNS else self._long_skeletons
        return kept.get((outlines, generation_prompt), make)

    def _with_items(
        self, token_ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, rows: list[int]
    ) -> Rendered:
        """Puts each item's tokens into its empty span."""
        id_chunks: list[np.ndarray] = []
        mask_chunks: list[np.ndarray] = []
        spans: list[Span] = []
        copied = inserted = 0
        for position, row in zip(positions.tolist(), rows, strict=True):
            if row < 0:
                continue
            title = self._items.row(row)
            after = position + 1
            id_chunks += (token_ids[copied:after], title)
            mask_chunks += (mask[copied:after], np.full(len(title), mask[position]))
            start = position + inserted
            spans.append(Span(start, start + len(title) + 2, row))
            copied = after
            inserted += len(title)
        if not spans:
            return Rendered(token_ids, mask, ())
        id_chunks.append(token_ids[copied:])
        mask_chunks.append(mask[copied:])
        return Rendered(
            np.concatenate(id_chunks, dtype=np.int32), np.concatenate(mask_chunks), tuple(spans)
        )


def _outline(role: Role, text: str, core: str) -> Outline:
    if len(core) == len(text):
        return Outline(role)
    leading = text[: len(text) - len(text.lstrip())]
    return Outline(role, leading, text[len(leading) + len(core) :])


def _assistant_tokens(
    guard: GuardedTokenizer,
    text: str,
    encoding: Encoding,
    skeleton: Skeleton,
    offsets: Sequence[int],
) -> np.ndarray:
    """Mask of the tokens in the assistant's turns.

    Args:
        guard: The tokenizer.
        text: The conversation.
        encoding: The encoded conversation.
        skeleton: Its skeleton.
        offsets: Where each text of the skeleton begins in `text`, in characters.
    """
    mask = np.zeros(len(encoding), dtype=np.bool_)
    for start, end in skeleton.turns:
        first, after = (
            _first_token(guard, text, encoding, offsets[place.text] + place.offset)
            for place in (start, end)
        )
        mask[first:after] = True
    return mask


def _first_token(guard: GuardedTokenizer, text: str, encoding: Encoding, character: int) -> int:
    """First token that begins at or after a character.

    A token that also covers earlier characters belongs to what comes before: after the prompt
    alone a model could not have written it.
    """
    token = encoding.char_to_token(character)
    wanted = character
    while token is None:
        # The normaliser dropped the character, or the string ends here.
        wanted += 1
        if wanted >= len(text):
            return len(encoding)
        token = encoding.char_to_token(wanted)
    if _begins_before(encoding, token, character):
        # Bytes of several unknown letters are all said to cover all of them, so ask again.
        before = guard.encode(text[:character]).ids
        if encoding.ids[: len(before)] == before:
            return len(before)
    while token < len(encoding) and _begins_before(encoding, token, character):
        token += 1
    # A prefix space that the tokenizer makes up is a token of no characters.
    while token > 0 and not _begins_before(encoding, token - 1, character):
        token -= 1
    return token


def _begins_before(encoding: Encoding, token: int, character: int) -> bool:
    characters = encoding.token_to_chars(token)
    return characters is not None and characters[0] < character
