"""What a chat template writes around messages, independent of what the messages say."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jinja2
from transformers import PreTrainedTokenizerFast

from incatalog.dialogue.guard import GuardedTokenizer, Mark
from incatalog.errors import DataError, TokenizerError

_SLOT = re.compile("\ue000(\\d+)\ue001")


class Outline(NamedTuple):
    """What a template may see of a message: its role and the white space around its content."""

    role: str
    leading: str = ""
    trailing: str = ""


class Place(NamedTuple):
    """A place in a skeleton: an offset in one of its fixed texts, in characters."""

    text: int
    offset: int


@dataclass(frozen=True)
class Skeleton:
    """The fixed texts of a rendered conversation, with a slot for a message between any two."""

    texts: tuple[str, ...]  # protected tokens are activated
    marks: tuple[tuple[Mark, ...], ...]  # the protected tokens of each text
    slots: tuple[int, ...]  # index of the message that fills each slot
    # What a model is to generate: from the end of the generation prompt to the end of the token
    # that ends the turn, for each assistant message.
    turns: tuple[tuple[Place, Place], ...]


class TemplateError(DataError):
    """The chat template refuses a sequence of roles, or drops or repeats a message."""


def make_skeleton(
    tokenizer: PreTrainedTokenizerFast,
    guard: GuardedTokenizer,
    outlines: Sequence[Outline],
    generation_prompt: bool,
) -> Skeleton:
    """Renders the chat template with a slot for each message.

    White space at the ends of a message stays outside its slot, so that templates that trim
    messages do so. With a generation prompt it ends with what comes before an answer.
    """
    rendered = _render(tokenizer, outlines, generation_prompt)
    pieces = _SLOT.split(rendered)
    raw, slots = pieces[::2], [int(slot) for slot in pieces[1::2]]
    if sorted(slots) != list(range(len(outlines))):
        roles = [outline.role for outline in outlines]
        found = f"the chat template writes the messages {slots} of roles {roles}"
        raise TemplateError(f"{found}; expected each exactly once")
    texts = [guard.activate(text) for text in raw]
    turns = []
    for index, outline in enumerate(outlines):
        if outline.role != "assistant":
            continue
        slot = slots.index(index)
        before, after = texts[slot].removesuffix(outline.leading), texts[slot + 1]
        # The template may refuse to end the conversation before this answer.
        with contextlib.suppress(TemplateError):
            if index and rendered.startswith(prompt := _render(tokenizer, outlines[:index])):
                parts = _SLOT.split(prompt)
                if len(parts) // 2 == slot:
                    before = guard.activate(parts[-1])
        end = guard.first_activated_end(after)
        if end is None:
            end = len(outline.trailing) if after.startswith(outline.trailing) else 0
        turns.append((Place(slot, len(before)), Place(slot + 1, end)))
    marks = tuple(map(guard.marks, texts))
    return Skeleton(tuple(texts), marks, tuple(slots), tuple(turns))


def takes_system(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template, which has to write a plain exchange, writes system messages."""
    if not tokenizer.chat_template:
        expected = "expected an instruction-tuned model, or set tokenizer.chat_template"
        raise TokenizerError(f"the tokenizer has no chat template; {expected}")

    def written(*roles: str) -> str:
        return "".join(sorted(_SLOT.findall(_render(tokenizer, list(map(Outline, roles))))))

    exchange = "user", "assistant", "user"
    try:
        plain = written(*exchange)
    except TemplateError as error:
        raise TokenizerError(f"unusable chat template: {error}") from error
    if plain != "012":
        fault = "it drops or repeats messages of a plain exchange"
        raise TokenizerError(f"unusable chat template: {fault}")
    with contextlib.suppress(TemplateError):
        return written("system", *exchange) == "0123"
    return False


def _render(
    tokenizer: PreTrainedTokenizerFast, outlines: Sequence[Outline], generation_prompt: bool = True
) -> str:
    messages = [
        {"role": one.role, "content": f"{one.leading}\ue000{index}\ue001{one.trailing}"}
        for index, one in enumerate(outlines)
    ]
    options = {"tokenize": False, "add_generation_prompt": generation_prompt}
    try:
        return str(tokenizer.apply_chat_template(messages, **options))
    except jinja2.TemplateError as error:
        roles = ", ".join(outline.role for outline in outlines)
        raise TemplateError(f"the chat template refuses the turns ({roles}): {error}") from error
