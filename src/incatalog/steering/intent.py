"""Whether a message wants items named: by rules where its words say it, else by vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float32

_POLITE = re.compile(
    r"(?:(?:ok(?:ay)?|thanks?|thank you|thx|cheers|great|perfect|cool|nice|bye|"
    r"goodbye|hello|hi|hey|"
    r"lol|haha|wow|awesome|brilliant|yes|no|yeah|yep|nope|sure|sounds good|got it|i see|well done|"
    r"never mind|nevermind|good (?:morning|evening|afternoon|night)|(?:very|"
    r"so) (?:much|kind|helpful)|"
    r"a lot|that(?:'s| is| was) (?:all|great|perfect|fine|helpful|enough|it)|all good|for now|"
    r"you too|see you|have a nice day|how are you(?: doing)?(?: today)?|what(?:'s| is) up|"
    r"there|then|again|today|much|later|that helps?(?: a lot)?|for (?:your|the) help|"
    r"i(?:'ll| will) (?:watch|take|try|buy|read|think about) (?:it|that|them|these|one of them))"
    r"[\s,.!?:;)(-]*)+"
)
# Nouns that are told or done, and not recommended.
_TOLD = (
    r"(?:reasons?|explanations?|summar(?:y|ies)|plots?|jokes?|poems?|recipes?|"
    r"director|cast|actors?|"
    r"details|reviews?|trailer|opinion|definition|proof|code|script|essay|letter|email|facts?|"
    r"translation|difference|synopsis|ending|refund|invoice|order|delivery|shipping|account|"
    r"password|answer|capital|weather|time|help with|advice on|information about|info about|haiku)"
)
_TALK = re.compile(
    r"^(?:(?:and|but|so|ok(?:ay)?|well|hm+|please|hey|hi|hello|thanks|great)[\s,]+)*(?:"
    r"why\b(?! not\b)|how come|explain|who\b|whom\b|whose\b|when\b|where\b|"
    r"how (?:old|long|much|many|big|far|tall|heavy|fast|did|do|does|is|are|was|were|"
    r"can|could|would|"
    r"come|well|good|scary|violent|funny)\b|"
    r"(?:is|was|were|does|did|has|had|isn't|wasn't|doesn't)\b(?! there)|are (?!there\b)|"
    r"do (?:you (?:know|think|like|remember|mean|really|even|understand|speak|ship|deliver|accept)|"
    r"i |they|these|those)|have you (?:seen|heard|read|watched|ever)|"
    r"(?:can|could|would|will) you (?:please )?(?:explain|tell|translate|write|"
    r"calculate|summari[sz]e|"
    r"describe|compare|say|spell|repeat|help me with|remember|speak|stop|define|count|sing)\b|"
    r"(?:translate|write|calculate|compute|solve|summari[sz]e|describe|compare|spell|define|prove|"
    r"count|sing|repeat|remember|say|stop|cancel|delete|forget|imagine|pretend|convert)\b|"
    r"tell (?:me|us) (?:about|more about|why|how|who|what|when|where|a joke|the|your|"
    r"something about|"
    r"anything about)|"
    r"what (?:(?:else|more) (?=do you know))?(?:year|language|genre|colou?r|size|time|day|"
    r"happens|happened|does|do you (?:mean|think|know)|did|made|makes|exactly|"
    r"sort of|kind of (?:film|movie|product|person) is)\b|"
    r"what(?:'s| is| are| was| were) (?:it|that|this|he|she|they|your (?:name|opinion)|"
    r"the (?:plot|capital|difference|meaning|director|price|name|point|weather|story|ending|time|"
    r"release|rating|length|runtime|size|colou?r|square|sum|population|first|second|third|last)|"
    r"\d|[\w' -]+ about\b|a [\w-]+\?*$|an [\w-]+\?*$)|"
    r"i (?:think|know|knew|believe|wonder|saw|have a question|had|was|am (?!looking|"
    r"in|after|search|"
    r"interested|bored|tired|planning|craving|going)|don't understand|do not understand|agree|"
    r"disagree|guess|already|just (?:watched|saw|bought|finished))\b|"
    r"i'm (?:not sure what you|happy|fine|good|sorry|from|called)|my name|"
    r"(?:which|what) (?:one )?of (?:these|those|them|the)\b|(?:that|this|it|they|these|those|the "
    r"(?:first|second|third|last) (?:one|film|movie)) (?:is|was|are|were|has|had|looks?|sounds?)\b"
    r"(?!.*\b(?:more|else|another|other|instead)\b)|"
    r"(?:the|your|this|that|my) (?:(?:very )?(?:last|previous|first|other|new) )?"
    r"(?:lists?|answers?|suggestions|recommendations|picks) (?:is|are|was|were)\b)"
)
_TALK_ANYWHERE = re.compile(
    rf"\b(?:give|show|tell|send|write|find|read) (?:me|us) (?:a |an |the |your |some |more )?"
    rf"(?:\w+ )?{_TOLD}\b|\b(?:want|need|like) (?:to (?:know|understand|cancel|return|"
    rf"complain|talk|"
    rf"ask|learn about|order|speak|thank|say)|(?:a |an |the |your )?{_TOLD})\b|"
    r"\d\s*(?:[-+*/×]|plus|minus|times|divided by)\s*\d|\bwhat does .* mean\b|"
    r"\bwhat (?:is|was|are|were) .* (?:about|called|named|famous for|made of|for)\s*\?*$"
)
_ASKS = re.compile(
    r"\b(?:recommend|suggest|suggestions?|recommendations?|surprise me|show (?:me|us)|"
    r"find (?:me|us|something)|give (?:me|us)|get me|look(?:ing)? for|search(?:ing)? for|"
    r"in the mood|feel(?:ing)? like|(?:i|we)(?:'d| would) (?:like|love|prefer|rather)|"
    r"(?:i|we) (?:want|need|fancy|could use|am after|are after|prefer)|i'm after|craving|"
    r"what (?:should|shall|can|could|would|do you (?:have|recommend|suggest)|to|now|"
    r"next|else|about|"
    r"other)|what's next|which (?:\w+ )*(?:should|would|can|could|do you|fits?|suits?|is|are|goes)|"
    r"how about|do you (?:have|sell|stock|carry)|have you (?:got|any)|got any|is there|are there|"
    r"any (?:good|ideas?|nice|more|other|new|film|movie)|anything|something|someone|another|"
    r"others?|more (?:of|like|please)|similar|ideas? for|gifts? for|present for|help me|"
    r"let's (?:watch|see|try)|best|top|must[- ](?:see|watch|have|read)|"
    r"what(?:'s| is| are) (?:a |an |the |some |your |good |any )?(?:good|best|nice|"
    r"great|favou?rite|"
    r"top|funniest|scariest|cheapest|popular|new|must|recommended|perfect|worth|similar|other))\b"
)
_ABOUT_THESE = re.compile(r"\b(?:of|between|among) (?:these|those|them|the two)\b.*\?\s*$")

# Half a sentence that changes the wish before it: "with robots", "but newer".
_GOES_ON = re.compile(
    r"(?:ok(?:ay)?[\s,]+)?(?:and|but|or|maybe|perhaps|rather|preferably|with|without|about|in|"
    r"set in|from|for|not|no|less|more|too|by|like|on|only|just|under|over)\b"
)
_MOST_WORDS = 8
# What people say; a message that no rule knows counts as those it is most like.
REQUESTS = (
    "a film for tonight", "light entertainment for a rainy afternoon", "scary stories please",
    "movies with spaceships and aliens", "horror from the eighties", "my kids are bored",
    "printer paper and pens for the office", "we are having a movie night with friends",
    "a present for my father", "just some comedies", "feel-good family entertainment",
    "only cheap ones under ten euros", "with less violence", "black ink cartridges",
    "not so old, and funnier", "date night movie", "date night, nothing sad",
    "I liked that, keep going", "stuff to organise my desk", "too scary, lighter please",
)  # fmt: skip
OTHERS = (
    "thank you, that was helpful", "why did you choose this one", "who directed that film",
    "tell me a joke", "what is the capital of France", "how are you today", "you are a robot",
    "that is a terrible answer", "I watched it yesterday and it was good",
    "the weather is lovely today", "my order has not arrived", "what does the word mean",
    "your list is too long", "I do not believe you", "please speak French with me",
    "explain the ending of the film", "how does this work", "I have a headache",
    "does it have a happy ending", "good job, see you tomorrow",
)  # fmt: skip
# How much more a message is like one kind than like the other, to count as it at once.
_NEAREST = 3


class Vectors(Protocol):
    """What makes vectors of texts."""

    def questions(self, texts: Sequence[str]) -> list[Float32[np.ndarray, " hidden"]]:
        """A unit vector of each text."""


def says_whether(lower: str) -> bool | None:
    """What the words of a message in lower case say; None where they do not say it."""
    text = lower.strip().replace("’", "'")
    if not text or _POLITE.fullmatch(text):
        return False
    # Of several sentences, one that asks for items is enough.
    found = [_sentence(part) for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]
    if True in found:
        return True
    return False if found and None not in found else None


def _sentence(text: str) -> bool | None:
    if _POLITE.fullmatch(text):
        return False
    bare = re.sub(
        r"^(?:(?:please|well|so|ok(?:ay)?|and|but|hi|hey|hello|thanks)[\s,!]+)+", "", text
    )
    if _ABOUT_THESE.search(text) or _TALK_ANYWHERE.search(text) or _TALK.match(bare):
        # "Thanks. Is there anything like it?" asks all the same.
        return bool(re.search(r"\b(?:something|anything) (?:like|similar|else)\b", text))
    return True if _ASKS.search(text) else None


def goes_on(lower: str) -> bool:
    """Whether a message in lower case is half a sentence that goes on from the wish before it."""
    text = lower.strip()
    short = len(text.split()) <= _MOST_WORDS and not text.endswith("?")
    return short and bool(_GOES_ON.match(text))


def sounds_like_request(text: str, vectors: Vectors) -> bool:
    """Whether a message is more like requests than like other things that people say."""
    own, *known = vectors.questions([text, *REQUESTS, *OTHERS])
    likeness = np.stack(known) @ own
    asked, other = likeness[: len(REQUESTS)], likeness[len(REQUESTS) :]
    return bool(np.sort(asked)[-_NEAREST:].sum() >= np.sort(other)[-_NEAREST:].sum())
