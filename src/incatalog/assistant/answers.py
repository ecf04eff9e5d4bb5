"""The scripts of answers: lists in a frame, explanations, talk, and a trained model's own text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from incatalog.assistant import frames
from incatalog.assistant.facts import Facts
from incatalog.assistant.known_names import known_names
from incatalog.assistant.plan import asks_which, asks_why, said_by
from incatalog.assistant.planning import Plan
from incatalog.assistant.prose import CheckedProse
from incatalog.assistant.script import Ask, Ending, Lines, Said, Script
from incatalog.assistant.voices import SENTENCE_TOKENS, TALK_SENTENCES, item_question, own_sentence
from incatalog.decoding.events import Finished
from incatalog.decoding.request import Request
from incatalog.recommender.answer import Recommendation
from incatalog.recommender.recommender import Recommender


@dataclass(frozen=True, eq=False)
class Answering:
    """Writes the script of a planned answer.

    Attributes:
        recommender: The model on its catalog.
        facts: What the catalog says of its items.
        plan: What the answer does.
        popular: Whether the items are what most people take, as nothing is known.
    """

    recommender: Recommender
    facts: Facts
    plan: Plan
    popular: bool = False

    def script(self, request: Request | None) -> Script:
        """The script; ``request`` is the plan's, weighed."""
        ending, act = Ending(), self.plan.act
        lines: Lines
        if act == "own":
            assert request is not None
            lines = self._own(request, ending)
        elif act == "recommend":
            lines = self._list(request, ending)
        elif act == "talk":
            assert request is not None
            lines = self._talk(request, ending)
        else:
            lines = self._told()
        return Script(self._within(lines, ending), ending)

    def _within(self, lines: Lines, ending: Ending) -> Lines:
        """The lines as far as there is room for their tokens, where a limit is set."""
        limit, tokenizer = self.plan.limit, self.recommender.backbone.tokenizer
        if limit is None or self.plan.act == "own":
            yield from lines
            return
        left, event = limit, None
        while True:
            try:
                said = next(lines) if event is None else lines.send(event)
            except StopIteration:
                return
            event = None
            if said is None or isinstance(said, Ask):
                event = yield said
                continue
            text = said if isinstance(said, str) else said.title
            tokens = tokenizer.encode(text, add_special_tokens=False)
            left -= len(tokens)
            if left < 0:
                if isinstance(said, str):
                    kept = tokens[:left]
                    yield tokenizer.decode(kept, clean_up_tokenization_spaces=False)
                ending.reason = "length"
                return
            yield said

    def _own(self, request: Request, ending: Ending) -> Lines:
        """What a trained model writes, with reasons beside its items."""
        text = self.recommender.answer_text()
        yield Ask([request])
        place = 0
        while True:
            event = yield None
            for said in text.feed(event):
                if isinstance(said, Recommendation):
                    said = self._reasoned(said, place)
                    place += 1
                yield said
            if isinstance(event, Finished):
                ending.reason = event.reason
                return

    def _list(self, request: Request | None, ending: Ending) -> Lines:
        """A list in its frame, each item followed by what is said of it."""
        plan, lacking = self.plan, self.plan.named.lacking
        if plan.named.missing:
            yield f"{frames.MISSING} "
        if lacking:
            yield f"{frames.lacking_line(lacking)} "
        if plan.named.unmentioned and not plan.named.missing:
            yield f"{frames.UNMENTIONED} "
        if request is None:
            yield frames.nothing_fits(plan.named)
            return
        text = self.recommender.answer_text()
        found: list[Recommendation] = []
        yield Ask([request])
        while True:
            event = yield None
            found += (one for one in text.feed(event) if isinstance(one, Recommendation))
            if isinstance(event, Finished):
                ending.reason = "length" if event.reason == "length" else "items"
                break
        liked = [self._title(row) for row in plan.history]
        seed = len(plan.messages), said_by(plan.messages[-1])
        first = frames.opening(len(found), plan.named, liked, popular=self.popular, seed=seed)
        yield f"{first}\n\n"
        if plan.voice == "model":
            yield from self._in_own_words(found, ending)
        else:
            for place, one in enumerate(found):
                yield from self._entry(self._reasoned(one, place), place)
        yield "\n" + frames.closing(len(found), plan.count, liked=bool(liked), seed=seed)

    def _in_own_words(self, found: Sequence[Recommendation], ending: Ending) -> Lines:
        """Entries of a list, with a sentence of the model each, or of facts where it has none."""
        known, catalog = known_names(self.recommender.items), self.recommender.catalog
        rows = [catalog.row(one.item_id) for one in found]
        asked = said_by(self.plan.messages[-1])
        yield Ask([
            self.recommender.chat_request(
                item_question(row, asked, self.facts), items=False, max_new_tokens=SENTENCE_TOKENS
            )
            for row in rows
        ])  # fmt: skip
        for place, (one, row) in enumerate(zip(found, rows, strict=True)):
            text = self.recommender.answer_text()
            while not isinstance(event := (yield None), Finished):
                for _ in text.feed(event):
                    pass
            for _ in text.feed(event):
                pass
            sentence, unknown = own_sentence(text.answer().text, row, known)
            ending.invented += unknown
            told = self._reasoned(one, place) if sentence is None else replace(one, reason=sentence)
            yield from self._entry(told, place)

    def _talk(self, request: Request, ending: Ending) -> Lines:
        """What the model says, sentence by sentence, but for those that name what is no item."""
        most = TALK_SENTENCES[self.plan.voice]
        prose = CheckedProse(known_names(self.recommender.items), most)
        text, said = self.recommender.answer_text(), False
        yield Ask([request])
        while True:
            event = yield None
            for piece in text.feed(event):
                for sentence in prose.add(str(piece)):
                    said = True
                    yield sentence
            if isinstance(event, Finished) or prose.over:
                whole = isinstance(event, Finished) and event.reason != "length"
                break
        for sentence in prose.end(whole=whole):
            said = True
            yield sentence
        ending.invented = prose.invented
        if not said:
            yield frames.redirect_line(self.recommender.catalog)

    def _told(self) -> Lines:
        """Without the model: courtesies, what can be asked, or what is known of some items."""
        catalog, plan = self.recommender.catalog, self.plan
        if plan.act == "greet":
            yield frames.small_talk(said_by(plan.messages[-1]), catalog)
        elif plan.act == "help":
            yield frames.help_line(catalog)
        elif not plan.about:
            yield (
                "I have not recommended anything yet that I could explain. Name an item of the "
                "catalog, or ask for some."
            )
        asked = said_by(plan.messages[-1])
        which = asks_which(asked)
        why = which or asks_why(asked)
        rows = plan.about if plan.act == "explain" else ()
        if plan.having is not None:
            yield frames.having_line(plan.having.unmet, plan.named.lacking)
            yield " " if len(rows) == 1 else "\n"
        elif which and rows:
            yield f"{frames.FIRST} "
        for place, row in enumerate(rows):
            told = self.facts.known(row)
            yield ("\n" if place else "") + told
            if why and (reason := self._reason_alone(row)):
                yield f" {reason}"
            elif not (why or plan.having or len(rows) > 1 or told.endswith(frames.NO_MORE)):
                yield f" {frames.NO_MORE}"
        if len(rows) > 1 and not (why or plan.having):
            yield f"\n{frames.NO_MORE_OF_THEM}"

    def _reason_alone(self, row: int) -> str | None:
        """Why an item may fit, where that is more than what is known of it anyway."""
        plan = self.plan
        history = [one for one in plan.history if one != row]
        liked, _ = self.facts.alike(row, history)
        if liked is None and not plan.named.labels:
            return None
        return self.facts.reason(
            row, history, plan.named, mentioned=plan.mentioned, known=True
        )  # fmt: skip

    def _entry(self, one: Recommendation, place: int) -> Iterator[Said]:
        yield f"{place + 1}. "
        yield one
        yield f" – {one.reason}\n" if one.reason else "\n"

    def _reasoned(self, one: Recommendation, place: int) -> Recommendation:
        plan, row = self.plan, self.recommender.catalog.row(one.item_id)
        reason = self.facts.reason(
            row, plan.history, plan.named, place, mentioned=plan.mentioned
        )  # fmt: skip
        return replace(one, reason=reason)

    def _title(self, row: int) -> str:
        return self.recommender.catalog.item(row).title
