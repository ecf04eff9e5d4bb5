"""A conversation becomes a wish: weights and filters of a catalog's items."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.console import Console

from incatalog.data.catalog import Catalog, Item
from incatalog.data.vectors import unit_rows
from incatalog.dialogue.list_lines import list_starts
from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.model.pretrained import cache_folder
from incatalog.steering.balance import WORDS, Balance
from incatalog.steering.bounds import MeasuredFields
from incatalog.steering.described_items import all_described, described
from incatalog.steering.heard import Heard, Listener
from incatalog.steering.intent import goes_on, says_whether, sounds_like_request
from incatalog.steering.kept_filters import kept_filters
from incatalog.steering.kinds import Kinds
from incatalog.steering.lexicon import Lexicon
from incatalog.steering.likeness import Alike, Likeness
from incatalog.steering.nouns import Nouns
from incatalog.steering.pointing import TitleKeys
from incatalog.steering.sentences import Sentences
from incatalog.steering.stems import in_lower_case, stems
from incatalog.steering.title_kinds import TitleKinds
from incatalog.steering.trends import trend_weights
from incatalog.steering.wish import Filter, LogWeights, Wish

OFF = "off"
CACHE = "steering"
# What a message counts for each turn that came after it; less where a new wish began since.
_FADING, _PASSED = 0.5, 0.2
# Older messages are not read: their wishes have faded, and reading takes time.
_MOST_TURNS = 12
_MOST_LETTERS = 2000
# Items that count as fitting best, or a hundredth of a large catalog; measured.
_FITTING, _SLOPE = 50, 0.15
# What an item wins that is of a kind, beside those that mention it: "ink" beside "gel ink pens".
_NAMED = 1.5
# What a likeness of 1 to an item that is pointed at adds to a log-weight.
_ABOUT = 20.0


@dataclass(frozen=True, eq=False)
class Parts:
    """How well items fit a text: by words, by vectors, and by the categories that are meant."""

    words: Alike
    vectors: Alike | None = None  # None without an encoder
    kinds: Alike | None = None  # logarithms; None where there are none to choose from

    def weighed(self, balance: Balance) -> Alike:
        """The log-weights of the items."""
        if self.vectors is None:
            return balance.strength * fitting(self.words)
        mixed = (1 - balance.words) * self.vectors + balance.words * self.words
        found = balance.strength * fitting(mixed)
        return found if self.kinds is None else found + balance.kinds * self.kinds


def fitting(likeness: Alike) -> Alike:
    """Likeness, flattened among the items that fit best.

    What is said chooses what fits; which of that a user likes best, the teacher knows better. What
    the teacher knows nothing of is still in the order of its likeness.
    """
    best = max(_FITTING, len(likeness) // 100)
    if len(likeness) <= best:
        return likeness
    enough = np.partition(likeness, -best)[-best]
    found: Alike = np.where(likeness > enough, enough + _SLOPE * (likeness - enough), likeness)
    return found


@dataclass(frozen=True, eq=False)
class Steering:
    """Reads what is said about the items of one catalog; several threads may.

    Attributes:
        catalog: The items.
        listener: Reads single messages.
        likeness: Compares texts with items.
        balance: How much words, vectors and categories count beside a teacher.
    """

    catalog: Catalog
    listener: Listener
    likeness: Likeness
    balance: Balance

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        texts: Sequence[str] | None = None,
        encoder: str | Sentences = "minilm",
        balance: Balance | None = None,
        cache: Path | None = None,
        console: Console | None = None,
    ) -> Steering:
        """Reads the texts of a catalog's items.

        Args:
            catalog: The items.
            texts: What is read of each row, in place of what the catalog has.
            encoder: ``minilm``, the folder of a sentence-transformers model, ``words`` for none, or
                one that is loaded.
            balance: What counts how much; as it was measured well if not given.
            cache: Folder where vectors are kept, so that no text is read twice; None keeps none.
            console: Where a long reading shows how far it is.

        Raises:
            BackboneError: The encoder is damaged, or MiniLM is not installed.
            ConfigError: There is no such encoder.
            VectorError: It gives no numbers for an item.
        """
        sentences = encoder if isinstance(encoder, Sentences) else None
        if isinstance(encoder, str) and encoder != WORDS:
            sentences = Sentences.load(encoder, cache)
        read = all_described(catalog) if texts is None else texts
        likeness = Likeness.of(read, sentences, console)
        listener = Listener(
            catalog,
            Lexicon.of(catalog),
            TitleKeys.of(catalog),
            MeasuredFields.of(catalog),
            TitleKinds.of(catalog),
            likeness.memory,
        )
        usual = Balance.usual(WORDS if sentences is None else "")
        found = cls(catalog, listener, likeness, balance or usual)
        if balance is None and found.kinds is not None and found.kinds.by_titles:
            return found.with_balance(Balance.usual("", by_titles=True))
        return found

    @classmethod
    def chosen(cls, catalog: Catalog, encoder: str, teacher: Path | None = None) -> Steering | None:
        """The steering that a flag names; None for ``off``.

        Vectors of items are kept in the cache of this user.

        Args:
            catalog: The items.
            encoder: As for :meth:`of`, or ``off``.
            teacher: Run folder of the teacher beside which it counts, as fitted there.
        """
        if encoder == OFF:
            return None
        balance = Balance.beside(teacher, encoder)
        return cls.of(catalog, None, encoder, balance, cache_folder() / CACHE)

    def with_catalog(self, catalog: Catalog) -> Steering:
        """The same for a changed catalog; only items that are new or changed are read."""
        before = self.catalog.items
        new = {
            row: item
            for row, item in enumerate(catalog.items)
            if row not in catalog.vacant and not (row < len(before) and _same(item, before[row]))
        }
        likeness = self.likeness.with_texts(
            {row: described(item) for row, item in new.items()}, len(catalog)
        )
        known = self.listener
        titles = known.titles
        if any(row < len(before) and item.title != before[row].title for row, item in new.items()):
            # A row that holds another item now would be found by its old title.
            titles = TitleKeys.of(catalog)
        listener = Listener(
            catalog,
            known.lexicon.with_items(new.values()),
            titles.with_titles((row, item.title) for row, item in new.items()),
            known.measured.with_items(new.values()),
            known.kinds.with_items(new.values()),
            likeness.memory,
        )
        return replace(self, catalog=catalog, listener=listener, likeness=likeness)

    def with_balance(self, balance: Balance) -> Steering:
        """The same, where words, vectors and categories count as given."""
        return replace(self, balance=balance)

    def read(self, messages: Sequence[Message], *, off: Collection[str] = ()) -> Wish:
        """What a conversation wants, most of all its last message.

        Args:
            messages: The turns; system messages say nothing of a wish.
            off: Ids of filters that were taken off. Their words count as weights then.

        Returns:
            The wish; one that changes nothing where nothing was said of items.
        """
        turns = self._turns(messages)
        if not turns:
            return Wish()
        newest = turns[-1]
        filters = tuple(one for one in kept_filters(turns) if one.id not in off)
        about, without = self._pointed(turns)
        return Wish(
            self._log_weights(turns, about, frozenset(off), filters),
            filters,
            without,
            about,
            newest.k,
            self.recommends(_last_text(messages), newest, follows=_follows(messages)),
            tuple(dict.fromkeys(_said_of_this(turns))),
            tuple(dict.fromkeys(text for turn in turns for text in turn.unwanted)),
            newest.lacking,
            newest.unmentioned,
        )

    def recommends(self, text: str, heard: Heard | None = None, *, follows: bool = False) -> bool:
        """Whether an answer to a message should name items.

        Args:
            text: The message.
            heard: What it says, if that is known.
            follows: Whether there was an answer before it, which it may go on from.
        """
        known = says_whether(in_lower_case(text))
        if known is None and follows and goes_on(in_lower_case(text)):
            known = True
        if known is not None:
            return known
        heard = self.listener.hear(text) if heard is None else heard
        point = heard.pointing
        limited = heard.filters or heard.trends or heard.lacking
        if limited or heard.k or point.about or point.without:
            return True
        sentences = self.likeness.memory.sentences
        if sentences is None:
            return heard.steers and not text.rstrip().endswith("?")
        return sounds_like_request(text[:_MOST_LETTERS], sentences)

    def _turns(self, messages: Sequence[Message]) -> list[Heard]:
        """What each of the user's turns says; an answer counts as what was shown before it."""
        shown: list[list[int]] = []
        turns: list[Heard] = []
        users = sum(message.role == "user" for message in messages)
        for message in messages:
            if message.role == "assistant":
                shown.append(self._named(message))
            elif message.role == "user":
                users -= 1
                if users < _MOST_TURNS:
                    text = _text(message)
                    heard = self.listener.hear(text, shown)
                    # What was asked of an answer, or told, is no wish that goes on.
                    passed = users > 0 and says_whether(in_lower_case(text)) is False
                    turns.append(Heard(pointing=heard.pointing, anew=False) if passed else heard)
        return turns

    def _named(self, message: Message) -> list[int]:
        """Rows of the items that an answer lists, in its order; else of those that it names."""
        rows = [part.row for part in message.parts if isinstance(part, ItemRef)]
        if not rows:
            text = _text(message)
            hits, starts = self.listener.titles.spotted(text), list_starts(text)
            # Reasons beside the items of a list name others.
            listed = [hit for hit in hits if hit.start in starts]
            rows = [hit.rows[0] for hit in listed or hits]
        gone = self.catalog.vacant
        return [row for row in dict.fromkeys(rows) if row not in gone]

    def _pointed(self, turns: Sequence[Heard]) -> tuple[tuple[int, ...], frozenset[int]]:
        gone = self.catalog.vacant
        about: tuple[int, ...] = ()
        for turn in turns:
            # A wish that is new ends what was said of single items before.
            if turn.pointing.about or turn.anew:
                about = turn.pointing.about
        without = frozenset(row for turn in turns for row in turn.pointing.without)
        return tuple(row for row in about if row not in gone), without - gone

    def _log_weights(
        self,
        turns: Sequence[Heard],
        about: Sequence[int],
        off: frozenset[str],
        filters: Sequence[Filter],
    ) -> LogWeights | None:
        found = np.zeros(len(self.catalog))
        counts = _weights_of(turns)
        asked = [
            (turn, count, _wanted(turn, off)) for turn, count in zip(turns, counts, strict=True)
        ]
        wanted = [(turn, count, text) for turn, count, text in asked if text]
        named = [one.condition.value for one in filters if one.condition.op == "words"]
        unwanted = [text for turn in turns for text in turn.unwanted]
        if wanted:
            words = [(word, count) for turn, count, _ in wanted for word in turn.words]
            texts = [(text, count) for _, count, text in wanted]
            parts = self._parts(texts, words)
            if named:
                # Kinds that were named need not be guessed.
                parts = replace(parts, kinds=None)
            found += parts.weighed(self.balance)
        for text in unwanted:
            found -= self.parts(text).weighed(self.balance)
        if about:
            found += _ABOUT * fitting(self.likeness.to_items(about))
        for kinds in named:
            if rows := self._nouns.rows(kinds):
                found[rows] += _NAMED
        trending = {one.what: one.way for turn in turns for one in turn.trends}
        moved = trend_weights(self.catalog, self.listener.measured, trending)
        if moved is not None:
            found += moved
        # Words that no item knows say nothing of any.
        return found - found.max() if np.ptp(found) > 0 else None

    def parts(self, text: str) -> Parts:
        """What a text alone says of the items, before it is known what counts how much."""
        return self._parts([(text, 1.0)], [(word, 1.0) for word in stems(text)])

    def _parts(
        self, texts: Sequence[tuple[str, float]], words: Sequence[tuple[str, float]]
    ) -> Parts:
        by_words, sentences = self.likeness.by_words(words), self.likeness.memory.sentences
        if sentences is None:
            return Parts(by_words)
        counts = np.array([count for _, count in texts], dtype=np.float32)
        # Both ways to say it are read in one pass.
        asking = dict.fromkeys(("", "" if self.kinds is None else self.kinds.asking))
        said = [f"{how}{text[:_MOST_LETTERS]}" for how in asking for text, _ in texts]
        vectors = np.stack(sentences.questions(said)).reshape(len(asking), len(texts), -1)
        units = unit_rows(np.stack([counts @ own for own in vectors])).astype(np.float32)
        kinds = None if self.kinds is None else self.kinds.log_meant(units[-1])
        return Parts(by_words, self.likeness.by_vectors(units[0]), kinds)

    @cached_property
    def _nouns(self) -> Nouns:
        return Nouns(self.catalog, self.listener.kinds.named_rows(self.catalog))

    @cached_property
    def kinds(self) -> Kinds | None:
        """What finds the categories that are meant; None where there are none to choose from."""
        return Kinds.of(self.catalog, self.likeness, self.listener.kinds)


def _same(item: Item, other: Item) -> bool:
    """Whether two items read alike; a model's spelling of the title does not matter."""
    return item is other or all(
        getattr(item, name) == getattr(other, name)
        for name in ("title", "categories", "description", "attributes")
    )


def _weights_of(turns: Sequence[Heard]) -> list[float]:
    """How much each turn counts: the newest wish most."""
    found: list[float] = []
    count = 1.0
    for turn in reversed(turns):
        found.append(count)
        # A limit that is added to a wish leaves the wish what it was.
        if turn.wanted or (turn.filters and turn.anew):
            count *= _PASSED if turn.anew else _FADING
    return found[::-1]


def _wanted(turn: Heard, off: frozenset[str]) -> str:
    """What items are compared with; the names of filters, too, where one was taken off."""
    return turn.named if any(one.id in off for one in turn.filters) else turn.wanted


def _said_of_this(turns: Sequence[Heard]) -> Iterator[str]:
    """Words of the newest wish and of what was added to it, the newest first."""
    for turn in reversed(turns):
        yield from turn.beyond
        if turn.anew:
            return


def _follows(messages: Sequence[Message]) -> bool:
    return any(message.role == "assistant" for message in messages)


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Text))


def _last_text(messages: Sequence[Message]) -> str:
    return next((_text(one) for one in reversed(messages) if one.role == "user"), "")
