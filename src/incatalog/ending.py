"""What a command says when it is done: what it wrote, how good that is, and what comes next.

Everything is read from what the command wrote, so a run that was finished before says the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from incatalog.artifacts import MANIFEST, read_json

_HR, _NDCG = "HR@10", "NDCG@10"
Figures = Mapping[str, float]
# Users whom popularity is ranked for at most: more tell nothing that the figures show.
_MOST_USERS = 10_000


@dataclass(frozen=True)
class Closing:
    """The last lines of a command."""

    wrote: str = ""
    quality: str = ""  # how good it is, with figures
    warning: str = ""  # what is not as it should be
    next: Sequence[Any] = ()  # the command that comes next, as words

    def lines(self) -> list[str]:
        """The lines to be printed."""
        command = " ".join(shlex.quote(str(word)) for word in self.next)
        told = {
            "wrote": self.wrote,
            "quality": self.quality,
            "warning": self.warning,
            "next": command and f"incatalog {command}",
        }
        return [f"{what}: {text}" for what, text in told.items() if text]


class Popular(NamedTuple):
    """What popularity reaches."""

    figures: Figures
    users: int
    rule: str  # on whom, and how


def ending(command: str, settings: Any) -> Closing:
    """What to say at the end of a command; nothing of one that has said it all."""
    found = _ENDINGS.get(command)
    return Closing() if found is None else found(settings)


def compared(what: str, found: Figures, popular: Popular) -> tuple[str, str]:
    """A line with figures beside those of popularity, and a warning where they are no better."""
    own = ", ".join(f"{name} {found[name]:.3f}" for name in (_HR, _NDCG))
    other = ", ".join(f"{popular.figures[name]:.3f}" for name in (_HR, _NDCG))
    quality = f"{what}: {own} (popularity: {other}; {popular.rule})"
    if found[_NDCG] > popular.figures[_NDCG]:
        return quality, ""
    return quality, "it is no better than popularity, which recommends the same to everybody"


def popularity(
    data: Path, split_name: str, users: Sequence[int] | None, *, exclude_seen: bool
) -> Popular:
    """How good popularity is on the held-out items of some users; of very many, some by chance.

    Args:
        data: Folder of prepared data.
        split_name: ``valid`` or ``test``.
        users: Places of the users in the data; None for all.
        exclude_seen: Whether items of the history are left out.
    """
    from incatalog.data.catalog import Catalog
    from incatalog.data.interactions import MIN_INTERACTIONS, Histories, leave_one_out
    from incatalog.teacher.held_out import found_among_ten, popularity_of, sample_users

    catalog = Catalog.load(data)
    least = MIN_INTERACTIONS if split_name == "valid" else 2
    split = leave_one_out(Histories.load(data, catalog), least)
    every = range(len(split)) if users is None else users
    held_out = getattr(split, split_name)
    asked = [held_out(every[place]) for place in sample_users(len(every), _MOST_USERS, 0)]
    hits, gains = found_among_ten(popularity_of(split, catalog), asked, exclude_seen=exclude_seen)
    figures = {_HR: float(hits.mean()), _NDCG: float(gains.mean())}
    seen = "seen items left out" if exclude_seen else "seen items not left out"
    many = "" if len(asked) == len(every) else f" of {len(every):,}"
    return Popular(figures, len(asked), f"{len(asked):,}{many} users, {seen}")


def _results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(out / MANIFEST)["results"]
    return found


def _prepared(settings: Any) -> Closing:
    return Closing(f"{settings.out}", next=["data", "check", settings.out])


def _checked(settings: Any) -> Closing:
    data = settings.data
    return Closing(next=[*["teacher", "fit", "--kind", "blend", "--exclude-seen", "--data"], data,
                        "--out", "runs/blend"])  # fmt: skip


def _teacher(settings: Any) -> Closing:
    """A teacher with its validation beside popularity."""
    if getattr(settings, "kind", "") == "popularity":
        return Closing(f"{settings.out}")
    popular = popularity(settings.data, "valid", None, exclude_seen=settings.exclude_seen)
    quality, warning = compared("validation", _results(settings.out), popular)
    chat = ["chat", "--model", "smollm2", "--domain", f"items={settings.data}"]
    return Closing(f"{settings.out}", quality, warning, [*chat, "--guide", settings.out])


def _trained(settings: Any) -> Closing:
    """A trained model with its validation beside popularity."""
    from incatalog.data.catalog import Catalog
    from incatalog.data.interactions import Histories, leave_one_out
    from incatalog.training.validation import validation_users

    found, out, data = _results(settings.out), settings.out, settings.data
    quality = warning = ""
    if _HR in found:
        split = leave_one_out(Histories.load(data, Catalog.load(data)))
        users = validation_users(split, settings.validation_users, settings.seed)
        unseen = settings.ranked_unseen
        popular = popularity(data, "valid", users, exclude_seen=unseen)
        quality, warning = compared("validation", found, popular)
        if warning:
            warning += "; train longer, or take a --preset that fits the model"
    merged = ["train", "merge", "--run", out, "--out", f"{out}-merged"]
    evaluated = ["evaluate", "recommend", "--model", out, "--data", data, "--exclude-seen"]
    after = merged if settings.adapts else [*evaluated, "--out", f"{out}-evaluation"]
    return Closing(f"{out}", quality, warning, after)


def _rewarded(settings: Any) -> Closing:
    """A model trained by reinforcement, beside the one that it started from."""
    found, out = _results(settings.out), settings.out
    quality = warning = ""
    if "ndcg_best" in found and "ndcg_start" in found:
        start, best = found["ndcg_start"], found["ndcg_best"]
        quality = f"validation: {_NDCG} {best:.4f} (the model it started from: {start:.4f})"
        warning = "" if best > start else "it is no better than the model it started from"
    merged = ["train", "merge", "--run", out, "--out", f"{out}-merged"]
    after = merged if settings.tune == "lora" else ["chat", "--model", out]
    return Closing(f"{out}", quality, warning, after)


def _scored(settings: Any) -> Closing:
    """Metrics on held-out items, beside those of popularity on the same users."""
    import polars as pl

    from incatalog.data.catalog import Catalog
    from incatalog.data.interactions import Histories

    found, out = _results(settings.out), settings.out
    after = ["evaluate", "report", "--runs", out, "--out", f"{out}-report"]
    if _HR not in found or settings.model == "popularity":
        return Closing(f"{out}", next=after)
    scored = set(pl.read_parquet(out / "users.parquet")["user_id"].to_list())
    ids = Histories.load(settings.data, Catalog.load(settings.data)).user_ids
    users = [place for place, user in enumerate(ids) if user in scored]
    popular = popularity(settings.data, settings.split, users, exclude_seen=settings.exclude_seen)
    quality, warning = compared(settings.split, found, popular)
    return Closing(f"{out}", quality, warning, after)


def _reported(settings: Any) -> Closing:
    """An evaluation that has printed its figures."""
    return Closing(f"{settings.out}", next=["evaluate", "report", "--runs", settings.out, "--out",
                                           f"{settings.out}-report"])  # fmt: skip


def _guided(settings: Any) -> Closing:
    """A model with a guide, whose weights `guide fit` has told."""
    return Closing(f"{settings.model}", next=["chat", "--model", settings.model])


def _steered(settings: Any) -> Closing:
    """A teacher with what `steering fit` has told."""
    chat = ["chat", "--model", "smollm2", "--domain", f"items={settings.data}"]
    return Closing(f"{settings.teacher}", next=[*chat, "--guide", settings.teacher])


def _embedded(settings: Any) -> Closing:
    file = settings.out / str(_results(settings.out)["file"])
    codebooks = settings.out.with_name("codebooks")
    return Closing(f"{file}", next=["items", "quantize", "--vectors", file, "--out", codebooks])


def _quantized(settings: Any) -> Closing:
    out = settings.out
    words: list[Any] = ["items", "assign", "--data", "DATA", "--model", out]
    return Closing(f"{out}", next=[*words, "--vectors", settings.vectors,
                                  "--out", out.with_name("codes")])  # fmt: skip


def _assigned(settings: Any) -> Closing:
    words: list[Any] = ["train", "sft", "--model", "tiny", "--method", "token"]
    words += ["--data", settings.data, "--index", settings.out]
    return Closing(f"{settings.out}", next=[*words, "--out", settings.out.with_name("token")])


def _asked(settings: Any) -> Closing:
    """A model that can be asked."""
    return Closing(f"{settings.out}", next=["chat", "--model", settings.out])


def _rows(settings: Any) -> Closing:
    words: list[Any] = ["rewrite", "train", "--data", settings.out, "--model", "smollm2"]
    rewriter = settings.out.with_name("rewriter")
    return Closing(f"{settings.out}", next=[*words, "--scorers", "SCORERS.yaml", "--out", rewriter])


def _rewriter(settings: Any) -> Closing:
    words: list[Any] = ["rewrite", "apply", "--data", "DATA", "--rows", settings.data]
    names = settings.out.with_name("names")
    return Closing(f"{settings.out}", next=[*words, "--model", settings.out, "--out", names])


def _paraphrased(settings: Any) -> Closing:
    file, renamed = settings.out / "paraphrases.jsonl", settings.out.with_name("renamed")
    words: list[Any] = ["rewrite", "catalog", "--paraphrases", file, "--data", settings.data]
    return Closing(f"{file}", next=[*words, "--out", renamed])


def _renamed(settings: Any) -> Closing:
    words: list[Any] = ["train", "sft", "--model", "tiny", "--title-field", "title_t"]
    named = settings.out.with_name("renamed-tiny")
    return Closing(f"{settings.out}", next=[*words, "--data", settings.out, "--out", named])


def _listed(settings: Any) -> Closing:
    """Lists for everybody, and how to find out how good they are."""
    found = _results(settings.out)
    wrote = f"{settings.out}/shards: lists for {found['users']:,} users, {found['shards']:,} files"
    data = "DATA" if settings.data is None else settings.data
    words: list[Any] = ["evaluate", "recommend", "--model", settings.model, "--data", data]
    words += ["--exclude-seen"] if settings.exclude_seen else []
    words += [] if settings.guide == "own" else ["--guide", settings.guide]
    return Closing(wrote, next=[*words, "--out", f"{settings.out}-evaluation"])


def _written(settings: Any) -> Closing:
    """Something that is read by others, or the end of the way."""
    return Closing(f"{settings.out}" if settings.out is not None else "")


def _published(settings: Any) -> Closing:
    """A model that others can load, unless nothing was sent."""
    if settings.dry_run:
        return Closing()
    at = [] if settings.revision is None else ["--revision", settings.revision]
    return Closing(next=["chat", "--model", settings.to, *at])


_DATA = ("amazon", "movielens", "minionerec", "steam", "yelp", "table", "convert")
_ENDINGS: dict[str, Callable[[Any], Closing]] = {
    **{f"data {source}": _prepared for source in _DATA},
    "data check": _checked,
    "data to-unirec": _written,
    "teacher fit": _teacher,
    "teacher blend": _teacher,
    "teacher import-unirec": _teacher,
    "items embed": _embedded,
    "items quantize": _quantized,
    "items assign": _assigned,
    "train sft": _trained,
    "train grpo": _rewarded,
    "train merge": _asked,
    "model import": _asked,
    "rewrite data": _rows,
    "rewrite train": _rewriter,
    "rewrite apply": _paraphrased,
    "rewrite catalog": _renamed,
    "evaluate recommend": _scored,
    "evaluate retrieval": _written,
    "evaluate chat": _reported,
    "evaluate general": _written,
    "evaluate compare": _written,
    "evaluate report": _written,
    "batch": _listed,
    "publish": _published,
    "guide fit": _guided,
    "steering fit": _steered,
}
