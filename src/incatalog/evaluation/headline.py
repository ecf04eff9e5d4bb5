"""Three sentences about some runs: what was compared, who wins, what the language model adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from incatalog.evaluation.finished import FinishedRun
from incatalog.evaluation.looks import label_of, look_of
from incatalog.evaluation.result_tables import range_text

# What a winner may be named by, the first of them that was compared.
DECIDING = ("NDCG", "HR", "MRR", "Recall")

_SURE = 0.05
_FAMILIES = {"base": "base line", "teacher": "teacher", "language": "language model"}


class Headline(NamedTuple):
    """What readers should take away, each one sentence."""

    compared: str
    winner: str
    language_model: str


class Gap(NamedTuple):
    """The mean difference between two runs over the same users, with its 95 % interval."""

    value: float
    low: float
    high: float
    p: float | None  # Corrected for the number of pairs.

    def __neg__(self) -> Gap:
        """The difference seen from the other run."""
        return Gap(-self.value, -self.high, -self.low, self.p)

    def __str__(self) -> str:
        """The difference and its interval, for a sentence."""
        return range_text(self)

    @property
    def is_ahead(self) -> bool:
        """Whether the first run is better, and not by chance."""
        return self.low > 0

    @property
    def is_behind(self) -> bool:
        """Whether the first run is worse, and not by chance."""
        return self.high < 0

    @property
    def is_zero(self) -> bool:
        """Whether there is no difference at all."""
        return self.value == self.low == self.high == 0


class Standing:
    """Runs on the same users, from the best down, by one metric."""

    def __init__(
        self, runs: Sequence[FinishedRun], pairs: Sequence[Mapping[str, Any]], metric: str
    ) -> None:
        """Orders the runs that have the metric; `pairs` are those of `compare_runs`.

        Of equal runs those without a language model are first.
        """
        self.metric = metric
        scored = [run for run in runs if metric in run.summary["metrics"]]
        self.runs = sorted(scored, key=lambda run: (-self._value(run), run.is_language_model))
        own = [pair for pair in pairs if pair["metric"] == metric]
        self._pairs = {(pair["second"], pair["first"]): pair for pair in own}
        self.comparisons = len(own)

    def _value(self, run: FinishedRun) -> float:
        return float(run.summary["metrics"][self.metric]["value"])

    def gap(self, one: FinishedRun, other: FinishedRun) -> Gap:
        """The first run less the other."""
        if (one.name, other.name) not in self._pairs:
            return -self.gap(other, one)
        pair = self._pairs[one.name, other.name]
        return Gap(**pair["difference"], p=pair.get("p_holm"))

    @property
    def tied(self) -> list[FinishedRun]:
        """The best run, and those whose difference from it may be chance."""
        best, *others = self.runs
        return [best, *(run for run in others if not self.gap(best, run).is_ahead)]


def deciding_metric(names: Iterable[str]) -> str | None:
    """The metric that a winner is named by, of those that were compared."""
    known = {name.split("@")[0]: name for name in reversed(list(names))}
    return next((known[name] for name in DECIDING if name in known), None)


def headline(
    runs: Sequence[FinishedRun],
    pairs: Sequence[Mapping[str, Any]],
    metric: str,
    chats: Sequence[FinishedRun] = (),
    items: int | None = None,
) -> Headline:
    """The three sentences, made from the figures.

    Args:
        runs: Runs of `incatalog evaluate recommend`, under different names.
        pairs: Their differences as of `compare_runs`; none if they were scored on other users.
        metric: What decides, such as ``NDCG@10``.
        chats: Runs of `incatalog evaluate chat`.
        items: Size of the catalog, where it is known.
    """
    standing = Standing(runs, pairs, metric)
    comparable = bool(standing.runs) and (len(runs) == 1 or standing.comparisons > 0)
    return Headline(
        _compared(runs, chats, items),
        _winner(standing) if comparable else _no_winner(runs),
        _added(standing if comparable else None, runs, chats),
    )


def _compared(runs: Sequence[FinishedRun], chats: Sequence[FinishedRun], items: int | None) -> str:
    asked = [*runs, *chats]
    looks = [look_of(run) for run in asked]
    kinds = []
    for family, noun in _FAMILIES.items():
        if labels := dict.fromkeys(look.label for look in looks if look.family == family):
            kinds.append(f"the {noun}{'s' if len(labels) > 1 else ''} {_all_of(labels)}")
    *first, last = kinds
    who = f"{', '.join(first)}{',' if first[1:] else ''} and {last}" if first else last
    users = _all_of(f"{n:,}" for n in sorted({int(run.summary["users"]) for run in runs or chats}))
    data = _all_of(dict.fromkeys(_config(run, "data") for run in runs or chats))
    whom = f"{users} users of {data}{f' ({items:,} items)' if items else ''}"
    if not runs:
        return f"T{who[1:]} held conversations with {whom}."
    k = _all_of(map(str, sorted({run.k for run in runs})))
    ways = f" in {len(runs)} runs" if len(runs) > len({run.method for run in runs}) else ""
    last_items = {"test": "last item", "valid": "last item but one"}
    right = " or the ".join(sorted({last_items[_config(run, "split")] for run in runs}))
    seen = {run.manifest["config"]["exclude_seen"] for run in runs}
    left = "; what a user had seen was left out" if True in seen else ""
    return (
        f"T{who[1:]} recommended {k} items to each of {whom}{ways}; right is the {right} of each "
        f"user, which was hidden{left}{' in some runs' if len(seen) > 1 else ''}."
    )


def _winner(standing: Standing) -> str:
    best, *tied = standing.tied
    found = best.summary["metrics"][standing.metric]
    level = f"{standing.metric} {range_text(Gap(**found, p=None), '95 % interval ')}"
    ending = f"{_share(best, standing.runs)}."
    if len(standing.runs) == 1:
        return f"Nobody wins, as {label_of(best)} is alone: it has {level}{ending}"
    lost = [run for run in standing.runs if run not in (best, *tied)]
    above = ""
    if lost:
        gap = standing.gap(best, lost[0])
        above = f"{gap} above {label_of(lost[0])}, the next"
        if gap.p is not None and gap.p >= _SURE:
            above += f" (p {gap.p:.2f} once all {standing.comparisons} comparisons are counted)"
    if not tied:
        return f"The winner is {label_of(best)}: it has {level}, {above}{ending}"
    names = f"{_all_of(label_of(run) for run in (best, *tied))} tie"
    widest = max((standing.gap(best, run) for run in tied), key=lambda gap: gap.value)
    between = f"differences from it may be chance (the largest is {widest})"
    if widest.is_zero:
        between = f"{'the others score' if tied[1:] else f'{label_of(tied[0])} scores'} the same"
    start = f"At the top {names}" if lost else f"Nobody wins: {names}"
    rest = f", {above}, and {between}" if lost else f", and {between}"
    return f"{start}; {label_of(best)} has {level}{rest}{ending}"


def _no_winner(runs: Sequence[FinishedRun]) -> str:
    if not runs:
        return "Nobody wins, as nothing was ranked."
    return "Nobody wins, as the runs differ in users, held-out items or the length of answers."


def _share(best: FinishedRun, runs: Sequence[FinishedRun]) -> str:
    """How many users are served, in words, beside the base line."""
    hits = f"HR@{best.k}"
    shares = {run.name: run.summary["metrics"].get(hits) for run in runs}
    if shares[best.name] is None:
        return ""
    percent = {name: f"{100 * found['value']:.1f} %" for name, found in shares.items() if found}
    text = f"; the right item is among its {best.k} for {percent[best.name]} of users"
    base = [run for run in runs if look_of(run).family == "base" and run.name in percent]
    if base and best not in base:
        text += f", among those of {label_of(base[0])}, the base line, for {percent[base[0].name]}"
    return text


def _added(
    standing: Standing | None, runs: Sequence[FinishedRun], chats: Sequence[FinishedRun]
) -> str:
    asked = [run for run in runs if run.is_language_model]
    if not asked and not chats:
        return "No language model is among the runs, so what one adds was not measured."
    talk = f"conversation{_conversations(chats)}{_names_given(asked)}"
    if standing is None or not asked:
        return f"The language model adds {talk}; what it adds to accuracy was not measured."
    guided = [run for run in standing.runs if run.guided]
    models = [run for run in standing.runs if run.is_language_model and not run.guided]
    teachers = [run for run in standing.runs if look_of(run).family == "teacher"]
    # Where there is a guide people get guided answers: those are held against the guide itself.
    guides = [run for run in teachers if guided and guided[0].is_guided_by(run)]
    if guided and not guides:
        why = f"the guide of {label_of(guided[0])} is not among the runs"
        return (
            f"What the language model adds to accuracy was not measured, as {why}; it adds {talk}."
        )
    best = (guided or models)[0]
    if not teachers:
        return f"No teacher is among the runs to hold {label_of(best)} against; it adds {talk}."
    alone = (guides or teachers)[0]
    aside = ", as the guide decides alone" if best.summary.get("guide_weight") == 1 else ""
    if guided and models:
        first = label_of(models[0])
        aside += f"; without a guide the best, {first}, {_beside(standing, models[0], alone)}"
    base = [run for run in standing.runs if look_of(run).family == "base"]
    if base and not standing.gap(best, base[0]).is_ahead:
        aside += f"; popularity, the base line, is no worse than {label_of(best)}"
    gap = standing.gap(best, alone)
    if gap.is_ahead:
        added = f"{gap} of {standing.metric} to {label_of(alone)} alone"
        return f"The language model adds {added} (as {label_of(best)}{aside}), and {talk}."
    none = f"nothing to the accuracy of {label_of(alone)} alone"
    why = f"{label_of(best)} {_beside(standing, best, alone)}{aside}"
    return f"The language model adds {none}: {why}; what it adds is {talk}."


def _beside(standing: Standing, run: FinishedRun, other: FinishedRun) -> str:
    gap = standing.gap(run, other)
    if gap.is_zero:
        return "scores the same"
    if gap.is_ahead:
        return f"is {gap} above it"
    if gap.is_behind:
        return f"is {-gap} below it"
    return f"differs by {gap}, which may be chance"


def _conversations(chats: Sequence[FinishedRun]) -> str:
    """How conversations went, in brackets."""
    if not chats:
        return ", which was not measured here"
    told = []
    for run in chats:
        rounds = run.summary["rounds"]
        parts = [f"{run.summary['users']:,} with {run.name}"]
        for name, what in (
            ("ExactlyK", f"of the lists have exactly {run.k} items"),
            ("NoControl", "of the next answers are plain text"),
        ):
            if name in rounds:
                parts.append(f"{100 * rounds[name]['value']:.0f} % {what}")
        told.append(", ".join(parts))
    return f" ({'; '.join(told)})"


def _names_given(asked: Sequence[FinishedRun]) -> str:
    """How much of what language models named is in no catalog."""
    text = ""
    for free, where in ((False, ""), (True, "in free text ")):
        tables = [run.users for run in asked if run.is_free == free]
        total = sum(int(table["named"].list.len().sum()) for table in tables)
        inside = sum(int(table["items"].list.drop_nulls().list.len().sum()) for table in tables)
        if total:
            outside = total - inside
            share = f" ({100 * outside / total:.1f} %) are" if outside else " is"
            count = f"{outside:,}" if outside else "none"
            text += (
                f", and {where}{count} of the {total:,} items it named{share} outside the catalog"
            )
    return text


def _config(run: FinishedRun, name: str) -> str:
    return str(run.manifest["config"][name])


def _all_of(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
