"""What one message of a user says, read on its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from incatalog.data.catalog import Catalog
from incatalog.data.where import Condition, Where
from incatalog.steering.amounts import amount
from incatalog.steering.bounds import MeasuredFields, Said
from incatalog.steering.kind_phrases import NamedKinds, named_kinds
from incatalog.steering.labels import labelled
from incatalog.steering.lacking import lacked
from incatalog.steering.lexicon import (
    ADULTS,
    CATEGORY,
    CHILDREN,
    Lexicon,
    NamedValues,
    other_names,
    written_names,
)
from incatalog.steering.likeness import Memory
from incatalog.steering.meant_limits import as_meant
from incatalog.steering.negation import blanked, denied
from incatalog.steering.numbers_said import UNITS_AND_TENS
from incatalog.steering.pointing import Pointing, TitleKeys, read_pointing
from incatalog.steering.stems import in_lower_case, words_of
from incatalog.steering.title_kinds import TitleKinds
from incatalog.steering.trends import Trend, beside, trends, turned
from incatalog.steering.unmentioned import unmentioned
from incatalog.steering.wish import Filter

# "comedies and thrillers" are two kinds of films, "an action and adventure film" is one.
_OR = re.compile(r"\s*(?:,|/|\bor\b|\beither\b|,\s*or)\s*(?:(?:a|an|some|the|maybe)\s+)?")
_AND = re.compile(r"\s*(?:,?\s*and|&|\+|as well as)\s*(?:(?:a|an|some|the)\s+)?")
# So few items fulfil two categories at once that one of them is meant.
_FEW = 2
# A message that begins so goes on with what was asked for before.
_GOES_ON = re.compile(
    r"^\W*(?:and|but|or|only|just|also|rather|more|less|not|no|without|from|under|over|in|with|for|"
    r"what about|how about|ok but|yes but|cheaper|newer|older|between|at (?:most|least)|nothing)\b|"
    r"\b(?:of (?:these|those|them)|among (?:these|those|them)|these|those|them|ones?|it|another|"
    r"(?:some|any)thing (?:\w+er|more \w+|less \w+))\b"
)
_INSTEAD = re.compile(r"\b(?:instead|rather|forget (?:that|it|about)|start over|new topic)\b")


@dataclass(frozen=True)
class Heard:
    """What a message says.

    Attributes:
        filters: Conditions that it names, in its order.
        wanted: What it wants, as a text to compare items with; empty where it says nothing that
            the filters do not say.
        named: The same with what became filters, for when these are taken off.
        words: Words of it that say something, in the form that is compared.
        beyond: Those of them that say more than the filters, as they were written.
        unwanted: What it does not want and no filter says.
        pointing: Single items that it speaks of.
        trends: Which way prices and years are to go.
        anew: Whether it begins a wish of its own.
        k: How many items it asks for.
        lacking: What it limits and the catalog knows nothing of, such as "prices".
        unmentioned: Names in it that no item has in its text.
    """

    filters: tuple[Filter, ...] = ()
    wanted: str = ""
    named: str = ""
    words: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    pointing: Pointing = field(default_factory=Pointing)
    trends: tuple[Trend, ...] = ()
    anew: bool = True
    k: int | None = None
    lacking: tuple[str, ...] = ()
    unmentioned: tuple[str, ...] = ()

    @property
    def steers(self) -> bool:
        """Whether it says anything of the items that are wanted."""
        point = self.pointing
        told = self.filters or self.wanted or self.unwanted or self.trends
        return bool(told or point.about or point.without)


@dataclass(frozen=True, eq=False)
class Listener:
    """Reads messages about the items of one catalog."""

    catalog: Catalog
    lexicon: Lexicon
    titles: TitleKeys
    measured: MeasuredFields
    kinds: TitleKinds
    memory: Memory

    def hear(self, text: str, shown: Sequence[Sequence[int]] = ()) -> Heard:
        """Reads a message.

        Args:
            text: What the user says.
            shown: Rows of the items that each answer before it named.
        """
        lower = in_lower_case(text)
        pointing = read_pointing(text, self.titles, shown)
        taken = list(pointing.spans)
        rest = blanked(lower, taken)
        said, limited = as_meant(self.measured.read(rest), rest, denied(rest), self.measured)
        truths = [one for one in said if isinstance(one.condition.value, bool)]
        taken += limited
        missing = lacked(blanked(lower, taken), self.measured)
        taken += [(one.start, one.end) for one in missing]
        count = amount(blanked(lower, taken))
        taken += pointing.others
        if count is not None:
            taken.append((count.start, count.end))
        moved = trends(blanked(lower, taken), self.measured)
        refused = denied(blanked(lower, taken))
        conditions, unwanted = [_flipped(one, refused) for one in said], []
        going = [turned(one, lower, refused) for one in moved]
        limits = [beside(one, pointing.compared, self.catalog, self.measured) for one in going]
        conditions += [one for one in limits if one is not None]
        for _, start, end in refused:
            part = blanked(text, taken)[start:end]
            named = self.lexicon.find(words_of(part), self.memory)
            conditions += [_any_of(own, negative=True) for own in _fields(named)]
            if left := _left(part, named, (*truths, *moved), start):
                unwanted.append(left)
        taken += [(start, end) for start, _, end in refused]
        for match in ADULTS.finditer(blanked(lower, taken)):
            if of_children := self.lexicon.find(words_of(CHILDREN)):
                conditions += [_any_of(own, negative=True) for own in _fields(of_children)]
                taken.append(match.span())
        wanted = blanked(text, taken)
        words = words_of(wanted)
        named = self.lexicon.find(words, self.memory)
        conditions += self._conditions(wanted, named)
        inside = {at for one in named for at in range(one.start, one.end)}
        filters = [labelled(one, self.measured) for one in dict.fromkeys(conditions)]
        said_by_filters = set(inside)
        if kinds := named_kinds(wanted, words, inside, self._kind_names):
            said_by_filters |= kinds.places
            kinds = self._with_other_names(kinds)
            filters.append(_of_kinds(kinds))
        spans = [(one.start, one.end) for one in truths]
        spans += [(one.start, one.end) for one in moved]
        telling = [
            (at, word)
            for at, word in enumerate(words)
            if (word.says or at in inside)
            and not (word.stem.isdigit() or word.stem in UNITS_AND_TENS)
            and not any(start <= word.start < end for start, end in spans)
        ]
        beyond = any(at not in inside for at, _ in telling)
        plain = " ".join(wanted.split()) if telling else ""
        known = [*pointing.spans, *((words[at].start, words[at].end) for at in inside)]
        return Heard(
            filters=tuple(filters),
            wanted=plain if beyond else "",
            named=plain,
            words=tuple(word.stem for _, word in telling),
            beyond=tuple(word.text.lower() for at, word in telling if at not in said_by_filters),
            unwanted=tuple(unwanted),
            pointing=pointing,
            trends=_agreeing(one for one, own in zip(going, limits, strict=True) if own is None),
            anew=(bool(telling) and not _GOES_ON.search(lower)) or bool(_INSTEAD.search(lower)),
            k=None if count is None else count.k,
            lacking=tuple(dict.fromkeys(one.what for one in missing)),
            unmentioned=self._unmentioned(text, known),
        )

    def _unmentioned(self, text: str, known: list[tuple[int, int]]) -> tuple[str, ...]:
        """Names that no item has; titles that nothing points at are no such names."""
        if not unmentioned(blanked(text, known), self.memory):
            return ()
        titles = [(one.start, one.end) for one in self.titles.spotted(text)]
        return unmentioned(blanked(text, [*known, *titles]), self.memory)

    @cached_property
    def _kind_names(self) -> frozenset[str]:
        """What people call the kinds that titles tell."""
        return frozenset(name for one in self.kinds.kinds for name in other_names(one))

    def _with_other_names(self, kinds: NamedKinds) -> NamedKinds:
        """The kinds by all names that titles have for them."""
        seen = self.kinds.seen
        names = {other for one in kinds.values for other in written_names(one)}
        known = (one for one in names if all(seen.get(word.stem) for word in words_of(one)))
        return kinds._replace(values=tuple(sorted(known)))

    def _conditions(self, text: str, named: Sequence[NamedValues]) -> list[Condition]:
        """Conditions of values that a text names: any of a list, or all of what stands together."""
        words = words_of(text)
        groups: list[list[NamedValues]] = []
        for one in named:
            if groups:
                between = text[words[groups[-1][-1].end - 1].end : words[one.start].start]
                plural = any(w.text.lower() != w.stem for w in words[one.start : one.end])
                either = _OR.fullmatch(between) or (plural and _AND.fullmatch(between))
                if either:
                    groups[-1].append(one)
                    continue
            groups.append([one])
        made = [one for group in groups for one in map(_any_of, _fields(group))]
        return list(self._possible(made))

    def _possible(self, made: Sequence[Condition]) -> Iterable[Condition]:
        """All conditions at once; where hardly an item fulfils those of one field, any of them."""
        by_field: dict[str, list[Condition]] = {}
        for one in made:
            by_field.setdefault(one.field, []).append(one)
        for name, own in by_field.items():
            if len(own) > 1:
                both = Where(tuple(own)).rows(self.catalog).sum()
                if name != CATEGORY or both < _FEW:
                    texts = [one.value for one in own]
                    values = dict.fromkeys(
                        v for text in texts for v in (text if isinstance(text, tuple) else (text,))
                    )
                    yield Condition(name, "in", tuple(sorted(map(str, values))))
                    continue
            yield from own


def _of_kinds(kinds: NamedKinds) -> Filter:
    """A filter of items whose titles say that they are of some kinds."""
    values = kinds.values
    value = values[0] if len(values) == 1 else values
    return Filter.of(Condition("title", "words", value), kinds.label)


def _fields(named: Iterable[NamedValues]) -> list[dict[str, list[str]]]:
    """The values that are named, by field; of one value in two fields the first, categories."""
    found: dict[str, list[str]] = {}
    for one in named:
        fields = {value.field for value in one.values}
        field = CATEGORY if CATEGORY in fields else min(fields)
        found.setdefault(field, []).extend(v.text for v in one.values if v.field == field)
    return [{field: list(dict.fromkeys(texts))} for field, texts in found.items()]


def _any_of(own: dict[str, list[str]], negative: bool = False) -> Condition:
    [(field, texts)] = own.items()
    if len(texts) == 1:
        return Condition(field, "ne" if negative else "eq", texts[0])
    return Condition(field, "not_in" if negative else "in", tuple(sorted(texts)))


def _flipped(one: Said, refused: Sequence[tuple[int, int, int]]) -> Condition:
    """What is said of a truth, which may be denied: "not wireless"."""
    condition = one.condition
    denied_too = any(start <= one.start < end for _, start, end in refused)
    if not isinstance(condition.value, bool) or not denied_too:
        return condition
    return replace(condition, op="ne")


def _agreeing(trends: Iterable[Trend]) -> tuple[Trend, ...]:
    """Trends that no other takes back: "not too new, not too old" has none."""
    known = tuple(trends)
    ways = {(one.what, one.way) for one in known}
    return tuple(one for one in known if (one.what, -one.way) not in ways)


def _left(
    part: str, named: Sequence[NamedValues], spans: Sequence[Said | Trend], offset: int
) -> str:
    """What a denied part says beside the values that it names."""
    inside = {at for one in named for at in range(one.start, one.end)}
    left = [
        word
        for at, word in enumerate(words_of(part))
        if at not in inside
        and word.says
        and not any(one.start <= word.start + offset < one.end for one in spans)
    ]
    # Nouns beside a named value belong to it: "no horror stories".
    if not left or (named and len(left) < 2):
        return ""
    return " ".join(word.text for word in left)
