"""Messages to token ids, loss mask and item spans, for any tokenizer with a chat template."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from incatalog.data.conversations import Role
from incatalog.dialogue.guard import GuardedTokenizer, Mark
from incatalog.dialogue.skeleton import Outline, Skeleton, make_skeleton, takes_system
from incatalog.errors import CatalogError, DataError, TokenizerError
from incatalog.items.tokens import EOI, SOI, ItemTokens
from incatalog.recent import RecentlyUsed

# How many skeletons are kept, of conversations of a few turns and of long ones. Users choose the
# white space around their messages; with much of it, a skeleton would not be used again.
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
    """A control token that a wording talks about, by our name; it opens or closes no span."""

    token: Literal["<SOI>", "<EOI>"]


Part = Text | ItemRef | ControlToken


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; adjacent texts in it are one text."""

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
    """A conversation as a model reads it."""

    input_ids: Int32[np.ndarray, " length"]
    # True where an assistant writes: its turns with the tokens that end them, without what the
    # template puts in front.
    loss_mask: Bool[np.ndarray, " length"]
    spans: tuple[Span, ...]  # of all turns, in order


class _Content(NamedTuple):
    """A message with activated tokens, these tokens in order, and what a template may see of it."""

    core: str
    marks: list[Mark]
    outline: Outline


_Skeletons = RecentlyUsed[tuple[tuple[Outline, ...], bool], Skeleton]


class Renderer:
    """Renders conversations for one tokenizer and one catalog.

    The text of a conversation is encoded in one piece, so its ids are those of
    ``tokenizer.apply_chat_template`` wherever the messages spell no control token. Where a template
    has no place for a system message, its text stands before the first user message.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, item_tokens: ItemTokens, system: str = ""
    ) -> None:
        """Takes a fast tokenizer with a chat template, and items that were written with it.

        Conversations that do not begin with a system message get one that says `system`, if it says
        anything.
        """
        item_tokens.check_tokenizer(tokenizer)
        self._tokenizer = tokenizer
        self._guard = GuardedTokenizer(tokenizer)
        self._items = item_tokens
        named = zip((SOI, EOI), item_tokens.control(tokenizer), strict=True)
        self._control = {ours: self._guard.name(own) for ours, own in named}
        self._system = (Message("system", (Text(system),)),) if system else ()
        self._marks = {SOI: Mark(item_tokens.soi_token_id), EOI: Mark(item_tokens.eoi_token_id)}
        self._takes_system = takes_system(tokenizer)
        exchange = Outline("user"), Outline("assistant")
        around = make_skeleton(tokenizer, self._guard, exchange, generation_prompt=False).marks
        own = {mark.token for mark in self._marks.values()}
        if used := own & {mark.token for marks in around for mark in marks}:
            [token, *_] = tokenizer.convert_ids_to_tokens(sorted(used))
            raise TokenizerError(
                f"tokenizer: its chat template writes {token}, which is a control token; name "
                "another one"
            )
        self._skeletons: _Skeletons = RecentlyUsed(_SKELETONS_KEPT)
        self._long_skeletons: _Skeletons = RecentlyUsed(_LONG_KEPT)

    def with_items(self, item_tokens: ItemTokens) -> Renderer:
        """The same for other items that were written with this tokenizer."""
        other = copy.copy(self)
        other._items = item_tokens
        return other

    def conversation(self, messages: Sequence[Message]) -> Rendered:
        """Renders whole turns, for training."""
        return self._render(messages, generation_prompt=False)

    def prompt(self, messages: Sequence[Message]) -> Int32[np.ndarray, " length"]:
        """Renders a conversation up to where the assistant's next turn begins."""
        if messages and messages[-1].role != "user":
            last = f"the last message is from the {messages[-1].role}"
            raise DataError(f"messages: {last}; expected one from the user")
        return self._render(messages, generation_prompt=True).input_ids

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> Rendered:
        messages = self._placed(messages)
        contents = [self._content(message) for message in messages]
        outlines = tuple(content.outline for content in contents)
        skeleton = self._skeleton(outlines, generation_prompt)
        pieces, marks = [skeleton.texts[0]], list(skeleton.marks[0])
        behind = skeleton.texts[1:], skeleton.marks[1:]
        for slot, fixed, inner in zip(skeleton.slots, *behind, strict=True):
            pieces += (contents[slot].core, fixed)
            marks += (*contents[slot].marks, *inner)
        text = "".join(pieces)
        encoding = self._guard.encode(text)
        token_ids = np.array(encoding.ids, dtype=np.int32)
        positions = self._guard.positions(token_ids)
        if token_ids[positions].tolist() != [mark.token for mark in marks]:
            raise TokenizerError(
                "the tokenizer turned a message's text into a control token; refusing the message "
                "(its vocabulary spells one of its special tokens in another way)"
            )
        starts = [0, *itertools.accumulate(map(len, pieces))][::2]
        mask = np.zeros(len(token_ids), dtype=np.bool_)
        for turn in skeleton.turns:
            characters = (starts[place.text] + place.offset for place in turn)
            start, end = (_first_token(self._guard, text, encoding, one) for one in characters)
            mask[start:end] = True
        return self._with_items(token_ids, mask, positions, marks)

    def _placed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """With a system message, in the first user message where the template has no place."""
        if not messages:
            raise DataError("the conversation has no messages; expected at least one")
        if messages[0].role != "system":
            messages = (*self._system, *messages)
        if self._takes_system or messages[0].role != "system":
            return messages
        if len(messages) == 1 or messages[1].role != "user":
            raise DataError("a system message is not followed by a user message; add one")
        system, user, *others = messages
        return [Message("user", (*system.parts, Text("\n\n"), *user.parts)), *others]

    def _content(self, message: Message) -> _Content:
        pieces: list[str] = []
        marks: list[Mark] = []
        for part in message.parts:
            match part:
                case Text(text):
                    pieces.append(text)
                case ItemRef(row):
                    if not 0 <= row < len(self._items):
                        expected = f"expected 0 to {len(self._items) - 1}"
                        raise CatalogError(f"a message refers to item row {row}; {expected}")
                    pieces += self._control.values()
                    marks += (self._marks[SOI]._replace(row=row), self._marks[EOI])
                case ControlToken(token):
                    pieces.append(self._control[token])
                    marks.append(self._marks[token])
        text = "".join(pieces)
        core = text.strip()
        leading = text[: len(text) - len(text.lstrip())]
        outline = Outline(message.role, leading, text[len(leading) + len(core) :])
        return _Content(core, marks, outline)

    def _skeleton(self, outlines: tuple[Outline, ...], generation_prompt: bool) -> Skeleton:
        make = partial(make_skeleton, self._tokenizer, self._guard, outlines, generation_prompt)
        if sum(len(one.leading) + len(one.trailing) for one in outlines) > _MOST_SPACE:
            return make()
        kept = self._skeletons if len(outlines) <= _FEW_TURNS else self._long_skeletons
        return kept.get((outlines, generation_prompt), make)

    def _with_items(
        self, token_ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, marks: list[Mark]
    ) -> Rendered:
        """Puts each item's tokens into its empty span."""
        opening = np.array([mark.row is not None for mark in marks], dtype=np.bool_)
        rows = [mark.row for mark in marks if mark.row is not None]
        if not rows:
            return Rendered(token_ids, mask, ())
        opened = positions[opening]
        names = [self._items.row(row) for row in rows]
        sizes = np.array([len(name) for name in names])
        starts = opened + np.cumsum(sizes) - sizes
        ends = starts + sizes + 2
        inside = np.repeat(opened + 1, sizes)
        named = np.zeros(len(token_ids) + len(inside), dtype=np.bool_)
        named[inside + np.arange(len(inside))] = True
        ids, trained = np.empty_like(named, dtype=np.int32), np.empty_like(named)
        ids[named], ids[~named] = np.concatenate(names), token_ids
        trained[named], trained[~named] = np.repeat(mask[opened], sizes), mask
        spans = map(Span, starts.tolist(), ends.tolist(), rows)
        return Rendered(ids, trained, tuple(spans))


def _first_token(guard: GuardedTokenizer, text: str, encoding: Encoding, character: int) -> int:
    """First token that begins at or after a character.

    A token that also covers earlier characters belongs to what comes before: after the prompt
    alone a model could not have written it.
    """
    # The normaliser may have dropped the character.
    for wanted in range(character, len(text)):
        if (token := encoding.char_to_token(wanted)) is not None:
            break
    else:
        return len(encoding)
    if _begins_before(encoding, token, character):
        # Each byte of several unknown letters is said to cover all of them, so count what comes
        # before.
        before = guard.encode(text[:character]).ids
        if encoding.ids[: len(before)] == before:
            return len(before)
    while token < len(encoding) and _begins_before(encoding, token, character):
        token += 1
    # A space that the tokenizer puts before a text is a token without characters.
    while token > 0 and not _begins_before(encoding, token - 1, character):
        token -= 1
    return token


def _begins_before(encoding: Encoding, token: int, character: int) -> bool:
    characters = encoding.token_to_chars(token)
    return characters is not None and characters[0] < character
