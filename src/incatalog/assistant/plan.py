"""What a turn of a conversation is about: recommending, explaining, or talking."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from incatalog.assistant.invented import names_in
from incatalog.assistant.known_names import KnownNames
from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.steering.places import placed

Act = Literal["recommend", "explain", "help", "greet", "talk"]
"""What an answer does: name items; say what is known of some; say what can be asked; answer a
greeting, thanks and the like; talk."""

_COURTESY = (
    r"(?:hi|hello|hey|good (?:morning|evening|afternoon|day|night)|greetings|howdy|yo|thanks?|"
    r"thank you|thx|cheers|ok(?:ay)?|cool|great|nice|perfect|wonderful|awesome|bye|goodbye|see you|"
    r"how are you|what(?:'s| is) up|nice to meet you|sure|lovely|got it|never mind|sorry|please)"
)
_GREETING = re.compile(
    rf"\W*(?:{_COURTESY}(?:\W+|$)(?:(?:there|so|very|much|a lot|for that|for the help|doing|today|"
    r"again|later|everyone|all|friend|to you|work|job|that's|that|is|it|was|helpful)\b\W*)*)+",
    re.IGNORECASE,
)
_HELP = re.compile(
    r"\bwhat (?:can|do|could) you (?:do|help|recommend from|know|offer|have)\b"
    r"|\bhow (?:can|could|do) you help\b|\bhow does (?:this|it) work\b"
    r"|\bwhat (?:is|are) (?:this|you)(?: for)?\s*\??$|\bhow (?:do|can) i use\b|^\W*help\W*$"
    r"|\bwhat can i ask\b|\bwho are you\b",
    re.IGNORECASE,
)
_WHY = re.compile(
    r"\b(?:why|how come|what makes|explain|reasons?|justify|what for|where does that come from)\b",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"\b(?:tell me (?:more |something |a bit )?(?:about|of)|more about|what(?:'s| is| are| was)|"
    r"describe|details|who (?:made|directed|wrote|stars|plays|is in)|when (?:was|did)|"
    r"is (?:it|that|this|the)|are (?:they|those|these)|how (?:old|long|much|many)|compare|"
    r"do you know|have you (?:seen|read|heard)|what (?:else |more )?do you (?:think|know))\b",
    re.IGNORECASE,
)
_WISH = re.compile(
    r"\b(?:recommend|suggest|show me|find me|give me|looking for|look for|i(?:'d| would) like|"
    r"i want|i need|in the mood|something|anything|somewhat|more like|similar to|"
    r"else(?! do you know)|another|others?|any (?:good|other)|best|"
    r"which (?:one|ones|film|films|movie|movies|should)|"
    r"what (?:should|to|could|shall|would you)|good (?:film|movie|book|game|gift)s?|list of|"
    r"top \d+|ideas?|pick|picks|gift|for (?:my|me|a|the)|tonight|bored|"
    r"watch|buy|read next|surprise)\b",
    re.IGNORECASE,
)
_FACT = re.compile(
    r"^\W*(?:who|when|where|how|what(?:'s| is| are| was| were| does| did)|is|are|was|were|do|does|"
    r"did|can|could|will|would you|tell me (?:a|about|the)|write|translate|calculate|explain|"
    r"define|sing|count|spell)\b",
    re.IGNORECASE,
)
_WHICH = re.compile(
    r"\b(?:which|what) (?:one |of (?:these|those|them|the \w+) |film |movie |item |product )?"
    r"(?:would|should|shall|do|can) (?:you|i|we) (?:personally )?(?:pick|choose|take|prefer|"
    r"watch first|buy first|start with|recommend most|like (?:best|most))\b|"
    r"\byour (?:favou?rite|top pick|first choice)\b|"
    r"\b(?:pick|choose) (?:one|the best)(?: of (?:these|those|them))? for (?:me|us)\b|"
    r"\bwhich (?:one |of (?:these|those|them) )?(?:is|fits|suits)(?: \w+)? best\W*$",
    re.IGNORECASE,
)
_SPACED = re.compile(r"[^\w-]+")
_OF_YOU = re.compile(r"\b(?:did|do|have|would) you\b", re.IGNORECASE)
_ALL = re.compile(r"\b(?:these|those|them|they|all|your (?:list|picks|choices))\b", re.IGNORECASE)
_ONE = re.compile(r"\b(?:it|this|that|one|him|her)\b", re.IGNORECASE)
_NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_A_NUMBER = rf"(\d{{1,3}}|{'|'.join(_NUMBERS[1:])})"
_COUNT = re.compile(
    rf"\b{_A_NUMBER}\s+(?:[\w'-]+\s+){{0,2}}?(?:films?|movies?|books?|items?|things?|titles?|ones|"
    r"products?|games?|ideas|picks|suggestions|recommendations|more|others?|of them)\b"
    rf"|(?:^\W*|\b(?:give me|show me|find me|recommend|suggest|want|need|name|list|like)\s+)"
    rf"{_A_NUMBER}\s+(?:[\w'-]+\s+){{0,2}}?[\w'-]{{3,}}s\b(?! (?:and|old))",
    re.IGNORECASE,
)


def said_by(message: Message) -> str:
    """What a message says, without the items in it."""
    return "".join(part.text for part in message.parts if isinstance(part, Text))


def asks_why(text: str) -> bool:
    """Whether a message asks for reasons."""
    return bool(_WHY.search(text)) and not re.match(r"\W*(?:can|could) you", text, re.IGNORECASE)


def asks_which(text: str) -> bool:
    """Whether a message asks which item of a list to take."""
    return bool(_WHICH.search(text))


def asked_count(text: str) -> int | None:
    """How many items a message asks for, where it says so."""
    found = _COUNT.search(text)
    if found is None:
        return None
    word = (found[1] or found[2]).casefold()
    count = int(word) if word.isdigit() else _NUMBERS.index(word) + 1
    return count if 1 <= count <= 100 else None


def last_items(messages: Sequence[Message]) -> list[int]:
    """Rows of the items of the newest answer that named some."""
    for message in reversed(messages):
        if message.role == "assistant":
            rows = [part.row for part in message.parts if isinstance(part, ItemRef)]
            if rows:
                return rows
    return []


def asked_about(
    text: str, before: Sequence[int], known: KnownNames, recent: Sequence[int] = ()
) -> list[int]:
    """Rows of the items that a question is about: those it names, or points to in an answer.

    Args:
        text: The question.
        before: The items of the answer before it.
        known: The names of the catalog.
        recent: The items that the user pointed at before, which "it" means then.
    """
    named = [name.row for name in names_in(text, known) if name.row is not None]
    if named:
        return list(dict.fromkeys(named))
    if pointed := placed(text.lower(), before):
        return list(pointed)
    if _ALL.search(text):
        return list(before)
    return list(recent or before[:1]) if _ONE.search(text) else []


def act_of(
    text: str, about: Sequence[int], *, categories: Sequence[str] = (), recommends: bool | None
) -> Act:
    """What the answer to a message is to do.

    Args:
        text: The message.
        about: The items it is about.
        categories: The catalog's categories; a message that names one wishes for it.
        recommends: What steering thinks of it; None where nothing reads it.
    """
    if _HELP.search(text):
        return "help"
    wishes = bool(_WISH.search(text))
    if asks_why(text) and (about or not wishes or _OF_YOU.search(text)):
        return "explain" if about or not _FACT.match(text) else "talk"
    asks = bool(_ABOUT.search(text)) or text.rstrip().endswith("?")
    if about and asks and not (recommends if recommends is not None else wishes):
        return "explain"
    if _GREETING.fullmatch(text):
        return "greet"
    if recommends is not None:
        return "recommend" if recommends else "talk"
    if wishes:
        return "recommend"
    lower = f" {_SPACED.sub(' ', text.casefold())} "
    if any(f" {form} " in lower for name in categories for form in _forms(name.casefold())):
        return "recommend"
    if about and not _FACT.match(text):
        return "recommend"  # "I liked Alien (1979)."
    return "talk"


def _forms(name: str) -> tuple[str, ...]:
    """A category's name, alone and in the plural."""
    return name, f"{name}s", f"{name.removesuffix('y')}ies"
