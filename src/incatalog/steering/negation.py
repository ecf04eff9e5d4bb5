"""What a sentence does not want: "not horror", "no cartoons", "nothing scary"."""

from __future__ import annotations

import re

# Who dislikes it does not matter: "my husband doesn't like musicals" asks for none.
_NEGATOR = re.compile(
    r"\b(?:(?:do|does|did|would|will|could)(?: not|n['’]?t)\s+"
    r"(?:(?:really|ever|particularly)\s+)?(?:like|want|need|enjoy|care for|watch|stand|bear|love)|"
    r"(?<!about )(?<!of )(?<!with )(?<!on )(?:hates?|dislikes?|detests?|loathes?)|"
    r"can(?:not| not|['’]?t) (?:stand|bear|handle|take)|had enough of|"
    r"(?<!who is )(?<!who['’]s )(?:sick|tired|bored|afraid|scared|terrified|frightened)"
    r"(?: and tired)? (?:of|by|with)|"
    r"(?:fed up|bored) with|allergic to|"
    r"(?:not|never|isn['’]?t|aren['’]?t)(?: really| exactly| been| such| much of| that)*(?: an?)?"
    r"(?: big| huge| great)? fans? of|no fans? of|"
    r"instead of|rather than|anything but|"
    r"everything but|but no|but not|and no|and not|nothing(?: that is| too| with)?|no more|"
    r"not(?: too| so| very| really| a| an| any| another)*|no|without(?: any)?|except(?: for)?|"
    r"excluding|exclude|avoid|skip|leave out|less|non|never|none|isn['’]?t|aren['’]?t|"
    r"(?:should|must|may|can|could|does|do|will)(?: not|n['’]?t) (?:be|cost|have|exceed|afford|"
    r"spend|pay)|can['’]?t (?:afford|spend|pay)|won['’]?t (?:spend|pay)|"
    r"don['’]?t (?:show|give|recommend|suggest)(?: me| us)?(?: any)?)[\s-]+"
)
# Here the word denies nothing.
_IDLE = re.compile(
    r"\b(?:not (?:only|just|sure|bad|necessarily|yet|now|at all)|no (?:matter|problem|idea|doubt|"
    r"thanks|thank|worries|preference|need|limit)|why not|nothing (?:else|special|in particular)|"
    r"not (?:that|this|it)\b|no,|no\.|never mind|if not|or not)"
)
_END = re.compile(
    r"[.;!?:()\n]|,|\s[-–]\s|\b(?:but|please|though|although|instead|just|only|rather|so|because|"
    r"which|and (?:no|not|nothing|without|i|we|please|something|a|an|under|for|from))\b"
)


def denied(lower: str) -> list[tuple[int, int, int]]:
    """What a text in lower case denies: where it begins to, where that is named, and the end.

    "no horror or war" denies both; behind a comma, another thing is named, unless the list goes on
    to an "or".
    """
    found: list[tuple[int, int, int]] = []
    idle = [match.span() for match in _IDLE.finditer(lower)]
    at = 0
    while match := _NEGATOR.search(lower, at):
        at = match.end()
        if any(start < match.end() and match.start() < end for start, end in idle):
            continue
        end = _END.search(lower, at)
        stop = end.start() if end else len(lower)
        # "no horror, war or crime"
        while end is not None and end[0] == ",":
            following = _END.search(lower, end.end())
            close = following.start() if following else len(lower)
            part = lower[end.end() : close]
            if not (" or " in part or " nor " in part) or len(part.split()) > 6:
                break
            stop, end = close, following
        if lower[at:stop].strip():
            found.append((match.start(), at, stop))
        at = max(at, stop)
    return found


def blanked(text: str, spans: list[tuple[int, int]]) -> str:
    """A text of the same length in which some places are empty."""
    letters = list(text)
    for start, end in spans:
        letters[start:end] = " " * (end - start)
    return "".join(letters)
