"""Guides of a running service: which catalog has which, and what they say of each request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.data.catalog import Catalog
from incatalog.errors import ConfigError, TeacherError
from incatalog.recommender.domain_flags import by_domain
from incatalog.recommender.guide import Guide, Kind, LogWeights, item_weights
from incatalog.recommender.guide_folder import GuideChoice
from incatalog.recommender.recommender import Recommender
from incatalog.recommender.settings import OFF, OWN
from incatalog.serving.engine_telemetry import EngineTelemetry
from incatalog.serving.gathering import Gathering
from incatalog.serving.problems import ApiError
from incatalog.serving.question_schemas import ItemQuestion
from incatalog.serving.settings import ServeSettings
from incatalog.teacher_service.client import HttpTeacher

_log = logging.getLogger(__name__)
_THREADS = 8
# Seconds between two times that a teacher of this process is asked. A crowd waits longer for the
# model, and a teacher needs half of the time for each of four histories that it needs for one.
_PAUSE = 0.03
# Log-probabilities that are asked for at a time; more would take memory and save nothing.
_MOST_NUMBERS = 1 << 22


@dataclass(frozen=True)
class GuideChoices:
    """The guides that the settings name, by domain; a lone one is for the only domain."""

    settings: ServeSettings
    domains: Sequence[str]
    trained: bool  # whether the model was
    own: str  # fingerprint of the catalog in the model's folder

    def load(self, name: str, catalog: Catalog) -> Guide | None:
        """The guide of a domain; None where its answers are the model's alone."""
        return self.choice(name, catalog).load(self.settings.model, catalog, self.settings.device)

    def choice(self, name: str, catalog: Catalog) -> GuideChoice:
        """Which guide a domain has."""
        settings = self.settings
        teacher = by_domain("--guide", settings.guide, self.domains).get(name)
        shares = by_domain("--guide-weight", settings.guide_weight, self.domains)
        share = _share(shares[name]) if name in shares else None
        if teacher is None:
            # What lies in the model's folder is for the catalog that lies there.
            own = catalog.fingerprint == self.own
            teacher = OWN if own else OFF
            if share is not None and not own:
                why = f"domain {name} has no guide; name one with --guide"
                raise ConfigError(f"--guide-weight {share:g}: {why}")
        return GuideChoice(
            teacher,
            share,
            settings.guide_empty,
            trained=self.trained,
            patience=settings.guide_timeout,
        )

    def is_off(self, name: str) -> bool:
        """Whether a domain is to have no guide."""
        return by_domain("--guide", self.settings.guide, self.domains).get(name) == OFF


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"--guide-weight {text}: expected 0 to 1")
    return share


@dataclass(frozen=True, eq=False)
class Weighed:
    """What weighs the items of one answer."""

    weights: ItemWeights | None
    guided: bool | None  # whether a guide counts; None where the model has none


@dataclass(frozen=True, eq=False)
class _Weighing:
    """What one answer wants weighed."""

    model: Recommender
    history: Sequence[int]
    excluded: ExcludedItems | None
    kind: Kind
    boost: Mapping[str, float]
    share: float | None  # None for the guide's
    steer: LogWeights | None  # what was said of the items

    @property
    def guided(self) -> bool:
        """Whether the teacher is to be asked."""
        guide, share = self.model.guide, self.share
        return guide is not None and guide.counts(
            guide.share(self.kind) if share is None else share
        )

    def weights(self, said: LogWeights | None) -> ItemWeights | None:
        """The weights, when the teacher has spoken where it was to be asked."""
        [found] = item_weights(
            self.model.guide,
            [self.history],
            self.model.items,
            [self.excluded],
            self.kind,
            boost=self.boost,
            share=self.share,
            said=[said],
            steer=self.steer,
        )
        return found


class Guiding:
    """Asks the guides, once for each answer and in threads of their own."""

    def __init__(self, settings: ServeSettings, telemetry: EngineTelemetry) -> None:
        self._settings, self._telemetry = settings, telemetry
        # Most of the time of a served teacher is waiting, so several are asked at a time.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="incatalog-guide")
        self._here: Gathering[_Weighing, ItemWeights | None]
        self._here = Gathering(_weights, "incatalog-teacher", _PAUSE)

    def close(self) -> None:
        """Lets the threads go; what is being asked is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._here.close()

    async def weigh(
        self,
        model: Recommender,
        asked: ItemQuestion,
        history: Sequence[int],
        excluded: ExcludedItems | None,
        kind: Kind,
        steer: LogWeights | None = None,
    ) -> Weighed:
        """What weighs the items of an answer after a history (item rows).

        What was said of the items (``steer``, by row) counts beside guide and model.

        A teacher that fails is an ApiError (503), or makes the answer one of the model alone,
        where the operator has chosen that.
        """
        boost, share = asked.boost, asked.guide_weight
        plain = model.guide is None and model.catalog.log_boosts is None and steer is None
        if plain and not (boost or share):
            return Weighed(None, None)
        weighing = _Weighing(model, history, excluded, kind, boost, share, steer)
        try:
            weights = await self._asked(weighing)
        except TeacherError as error:
            _log.error("the teacher failed: %s", error)
            self._telemetry.teacher_failures.inc()
            if not self._settings.unguided_when_teacher_fails:
                raise _failed() from error
            weights = await self._asked(replace(weighing, share=0.0))
        guided = weights is not None and weights.model < 1
        return Weighed(weights, None if model.guide is None else guided)

    async def _asked(self, weighing: _Weighing) -> ItemWeights | None:
        model, guide = weighing.model, weighing.model.guide
        if weighing.guided and guide is not None and not isinstance(guide.teacher, HttpTeacher):
            most = max(1, _MOST_NUMBERS // len(model.catalog))
            return await self._here.ask((guide, model.items), weighing, most)
        # Who is served elsewhere is waited for, and boosts alone gain nothing by company.
        loop = asyncio.get_running_loop()
        [found] = await loop.run_in_executor(self._threads, _weights, [weighing])
        return found


def _weights(asked: Sequence[_Weighing]) -> list[ItemWeights | None]:
    """What weighs the items of answers by one guide, which is asked once for all of them."""
    first = asked[0]
    said: Sequence[LogWeights | None] = [None] * len(asked)
    if first.guided and first.model.guide is not None:
        histories = [one.history for one in asked]
        said = first.model.guide.log_weights(histories, first.model.items)
    return [one.weights(own) for one, own in zip(asked, said, strict=True)]


def _failed() -> ApiError:
    why = "the teacher that guides the answers failed; ask again later, or with guide_weight 0"
    return ApiError(503, f"guide: {why}", code="teacher_failed", headers={"Retry-After": "5"})
