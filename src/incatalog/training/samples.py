"""Samples of supervised training: conversations about items, rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Int64

from incatalog.data.interactions import LeaveOneOut
from incatalog.dialogue.render import Message, Rendered, Renderer
from incatalog.dialogue.tasks import fit_history, num_tokens, recommend_messages, with_exchange
from incatalog.dialogue.templates import Wording, wordings
from incatalog.errors import DataError
from incatalog.items.aliases import Aliases
from incatalog.items.tokens import ItemTokens
from incatalog.teacher.teacher import Teacher
from incatalog.training.alignment import Alignment
from incatalog.training.distillation import Asked, Distiller, Expected
from incatalog.training.draws import TOO_SHORT, Chance, Draws
from incatalog.training.general_chat import GeneralChat
from incatalog.training.settings import SampleSettings
from incatalog.training.soft_targets import SpanTargets

# Tokens that come with an item: those that open and close its span, and what stands between items.
_AROUND_ITEM = 5
# Users whose histories say how decided a teacher is.
_ASKED_ABOUT = 100


@dataclass(frozen=True)
class Sample:
    """A rendered conversation and what of it is trained."""

    rendered: Rendered
    trained: Bool[np.ndarray, " spans"]  # Item spans that carry loss
    cut: int = 0  # History items left out to fit the length
    soft: SpanTargets | None = None  # Of the trained spans; None for what is written there


@dataclass(frozen=True)
class _Task:
    """One recommendation to render."""

    user: int
    history: list[int]
    past: list[int]  # All items before the target
    target: int
    list_length: int
    wording: Wording
    key: tuple[int, ...] | None = None  # Of its random streams; None for validation
    exchange: tuple[Message, ...] | None = None
    before: bool = False


class SampleSource:
    """Makes recommendation, general and alignment samples.

    A sample of the training shows a random window of a user's training items and asks for the item
    behind it: the target is uniform over all but the first item, or each of these in turn; the
    start of the window is uniform over the ``max_history`` items before the target (arXiv
    2505.03336) or the first of them; ``history_dropout`` leaves items of the window out. The answer
    names the target first, then the teacher's best items, none of them among those the teacher was
    shown. With ``distill`` the target may be the teacher's. Where an item has aliases,
    one may stand in place of its title, drawn anew at each occurrence; names that only prompts may
    show carry no loss. Candidate lists and validation samples take titles.
    """

    def __init__(
        self,
        split: LeaveOneOut,
        titles: Sequence[str],
        item_tokens: ItemTokens,
        renderer: Renderer,
        settings: SampleSettings,
        *,
        teacher: Teacher | None = None,
        chat: GeneralChat | None = None,
        alignment: Alignment | None = None,
        aliases: Aliases | None = None,
    ) -> None:
        # In the renderer the names of aliases stand behind the items.
        aliases = aliases or Aliases()
        self._split, self._renderer, self._settings = split, renderer, settings
        self._teacher, self._chat, self._alignment = teacher, chat, alignment
        self._num_items = len(titles)
        names, form = (*titles, *aliases.texts), settings.shown_history
        self._messages = partial(
            recommend_messages,
            titles=names,
            history_form=form,
            list_form=settings.list_form,
            answer_form=settings.answer_form,
        )
        lengths = np.array([len(split.train(user)) for user in range(len(split))], dtype=np.int64)
        self.users = np.flatnonzero(lengths >= 2)
        if not len(self.users):
            raise DataError(TOO_SHORT)
        mention = settings.mention_control_tokens and settings.answer_form == "span"
        self._wordings = wordings("train", mention_control_tokens=mention, candidates=False)
        plain = len(self._wordings)
        if settings.candidate_ratio > 0:
            self._wordings += wordings("train", mention_control_tokens=mention, candidates=True)
        self._chance = Chance(
            settings,
            lengths[self.users],
            self._num_items,
            {row: [len(titles) + n for n in found] for row, found in aliases.of_row.items()},
            lists=teacher is not None,
            plain=plain,
            wordings=len(self._wordings),
            chat=chat,
            aligns=alignment is not None,
        )
        self.num_general, self.num_aligned = self._chance.num_general, self._chance.num_aligned
        self._owner = self.users[self._chance.owner]
        self._distiller: Distiller | None = None
        if teacher is not None and settings.distill:
            # A list names what is listed.
            best = max(settings.distill_items, settings.list_length + 1)
            share, temperature = settings.distill, settings.distill_temperature
            self._distiller = Distiller(
                teacher, split, share=share, temperature=temperature, best=best
            )
        sizes = np.diff(item_tokens.offsets) + _AROUND_ITEM
        self._average_size = float(sizes.mean())
        self._size_until = np.concatenate([[0], np.cumsum(sizes[split.histories.rows])])
        usual = (settings.min_candidates + settings.max_candidates) // 2
        offered = range(min(usual, self._num_items))
        bare = [
            self._messages(one, (), 1, [], candidates=offered if one.offers_candidates else None)
            for one in self._wordings
        ]
        self._wording_lengths = np.array([num_tokens(renderer, messages) for messages in bare])

    @property
    def per_epoch(self) -> int:
        """Samples of one epoch."""
        return len(self._owner) + self.num_general + self.num_aligned

    def listed_share(self) -> float | None:
        """How much of its probability a teacher gives to the items it lists, after some histories.

        None without soft targets.
        """
        if self._distiller is None:
            return None
        most = self._settings.max_history
        some = self.users[:: -(-len(self.users) // _ASKED_ABOUT)].tolist()
        asked = [Asked(user, tuple(self._split.train(user)[-most:].tolist())) for user in some]
        found = self._distiller.expected(asked).values()
        return float(np.mean([one.share.sum() for one in found]))

    def draws(self, epoch: int) -> Draws:
        """What chance decides in an epoch."""
        return self._chance.draws(epoch)

    def estimated_lengths(self, draws: Draws) -> Int64[np.ndarray, " samples"]:
        """Roughly the tokens of each sample of an epoch, to put like beside like."""
        first = self._split.histories.offsets[self._owner]
        size_until = self._size_until
        shown = size_until[first + draws.target + 1] - size_until[first + draws.start]
        # The teacher is not asked yet, so its items count as average ones.
        others = ((draws.list_length - 1) * self._average_size).astype(np.int64)
        lengths = [shown + others + self._wording_lengths[draws.wording]]
        if self._chat is not None:
            lengths.append(self._chat.lengths[draws.conversation])
        if self._alignment is not None:
            lengths.append(self._alignment.lengths[draws.alignment, draws.aligned])
        return np.concatenate(lengths).astype(np.int64)

    def train_samples(
        self, wanted: Sequence[tuple[int, int]], draws: Sequence[Draws]
    ) -> list[Sample]:
        """Samples by epoch and number within it, each with the draws of its epoch."""
        tasks: list[_Task] = []
        others: dict[int, Sample] = {}
        for place, ((epoch, number), drawn) in enumerate(zip(wanted, draws, strict=True)):
            if number < len(self._owner):
                tasks.append(self._task(epoch, number, drawn))
            else:
                messages = self._other(number - len(self._owner), drawn)
                rendered = self._renderer.conversation(messages)
                others[place] = Sample(rendered, _written(rendered))
        recommending = iter(self._distilled(tasks) if self._distiller else self._rendered(tasks))
        places = range(len(wanted))
        return [others[n] if n in others else next(recommending) for n in places]

    def validation_samples(self, users: Sequence[int]) -> list[Sample]:
        """For each user the validation item behind the newest of the items before it."""
        tasks = []
        for user in users:
            held_out = self._split.valid(user)
            past, length = held_out.history.tolist(), self._chance.validation_length(user)
            history = past[-self._settings.max_history :]
            target = int(held_out.target)
            tasks.append(_Task(user, history, past, target, length, self._wordings[0]))
        return self._rendered(tasks)

    def _other(self, number: int, drawn: Draws) -> tuple[Message, ...]:
        """A sample that recommends nothing: general conversations first, then alignment."""
        if number < self.num_general:
            assert self._chat is not None
            return self._chat.conversations[drawn.conversation[number]]
        assert self._alignment is not None
        place = number - self.num_general
        return self._alignment.messages(int(drawn.alignment[place]), int(drawn.aligned[place]))

    def _task(self, epoch: int, number: int, drawn: Draws) -> _Task:
        user = int(self._owner[number])
        items = self._split.train(user).tolist()
        target, start, length, wording, exchange, before = (int(c[number]) for c in drawn[:6])
        chat = None if exchange < 0 or self._chat is None else self._chat.exchanges[exchange]
        key = self._chance.key(epoch, user, target)
        history = self._chance.shown(items[start:target], *key)
        asked = items[target], length, self._wordings[wording]
        return _Task(user, history, items[:target], *asked, key, chat, bool(before))

    def _rendered(self, tasks: Sequence[_Task]) -> list[Sample]:
        """The answers name the target first, then the teacher's items; it is asked once."""
        answers = [[task.target] for task in tasks]
        if self._teacher is not None and tasks:
            known = [self._known(task) for task in tasks]
            best = self._teacher.top_k(known, max(task.list_length for task in tasks))
            for task, answer, rows in zip(tasks, answers, best.tolist(), strict=True):
                answer += [row for row in rows if row not in (task.target, -1)]
                del answer[task.list_length :]
        return [self._render(*pair) for pair in zip(tasks, answers, strict=True)]

    def _distilled(self, tasks: Sequence[_Task]) -> list[Sample]:
        """The same with soft targets, and answers that may begin with an item of the teacher's."""
        distiller = self._distiller
        assert distiller is not None
        whole = [Asked(task.user, tuple(self._known(task))) for task in tasks]
        asked = [self._questions(task, task.history) for task in tasks]
        expected = distiller.expected([*whole, *(one for some in asked for one in some)])
        samples, answers = [], []
        for task, known, some in zip(tasks, whole, asked, strict=True):
            assert task.key is not None
            first = task.target
            if not task.wording.offers_candidates:
                drawn = self._chance.first(*task.key)
                first = distiller.first(task.target, expected[some[-1]], drawn)
            others = [row for row in expected[known].best.tolist() if row != first]
            answers.append([first, *others[: task.list_length - 1]])
            samples.append(self._render(task, answers[-1]))
        # The teacher sees what the prompt shows, which is known by now.
        shown = [task.history[sample.cut :] for task, sample in zip(tasks, samples, strict=True)]
        cut = [self._questions(*one) for one in zip(tasks, shown, strict=True)]
        if any(sample.cut for sample in samples):
            expected |= distiller.expected([one for some in cut for one in some])
        each = zip(tasks, samples, answers, cut, strict=True)
        return [
            self._soft(task, sample, answer, [expected[one] for one in some])
            for task, sample, answer, some in each
        ]

    def _known(self, task: _Task) -> list[int]:
        """What the teacher is shown for the list."""
        return task.past if self._settings.teacher_sees == "history" else task.history

    def _questions(self, task: _Task, history: Sequence[int]) -> list[Asked]:
        """The histories before each trained span of a history but the first, and the whole one."""
        trained = self._settings.loss_on_history
        ends = range(1 if trained else len(history), len(history) + 1)
        return [Asked(task.user, tuple(history[:end])) for end in ends]

    def _soft(
        self, task: _Task, sample: Sample, answer: list[int], expected: Sequence[Expected]
    ) -> Sample:
        """A sample with what its trained spans could name."""
        assert self._distiller is not None
        # Who is offered some items is to take one of those.
        last = SpanTargets.written(len(answer))
        if not task.wording.offers_candidates:
            last = self._distiller.answer_targets(answer, task.target, expected[-1])
        if not self._settings.loss_on_history:
            return replace(sample, soft=last)
        history = self._distiller.history_targets([None, *expected[:-1]])
        shown = self._shown(task, sample.rendered, len(history))
        named = [one for one, place in zip(history, shown, strict=True) if sample.trained[place]]
        return replace(sample, soft=SpanTargets.joined([*named, last]))

    def _render(self, task: _Task, answer: list[int]) -> Sample:
        settings, history, named, candidates = self._settings, task.history, answer, None
        if task.key is not None:
            if task.wording.offers_candidates:
                candidates = self._chance.candidates(answer, *task.key)
            history, named = self._chance.spelled(history, answer, *task.key)

        def build(history: Sequence[int]) -> tuple[Message, ...]:
            count, wording = len(named), task.wording
            messages = self._messages(wording, history, count, named, candidates=candidates)
            if task.exchange is None:
                return messages
            return with_exchange(messages, task.exchange, before=task.before)

        rendered = self._renderer.conversation(build(history))
        cut = 0
        if len(rendered.input_ids) > settings.max_length:
            messages, cut = fit_history(self._renderer, build, history, settings.max_length)
            rendered = self._renderer.conversation(messages)
        trained = _written(rendered)
        if settings.loss_on_history:
            trained[self._shown(task, rendered, len(history) - cut)] = True
            if settings.paraphrases_in == "history":
                trained &= [span.row < self._num_items for span in rendered.spans]
        return Sample(rendered, trained, cut)

    def _shown(self, task: _Task, rendered: Rendered, count: int) -> Int64[np.ndarray, " shown"]:
        """Which spans are those of a history of so many items."""
        shown = np.flatnonzero(~_written(rendered))
        text, offers = task.wording.instruction, task.wording.offers_candidates
        last = offers and text.index("{candidates}") < text.index("{history}")
        return shown[len(shown) - count :] if last else shown[:count]


def _written(rendered: Rendered) -> Bool[np.ndarray, " spans"]:
    """Spans the assistant writes."""
    starts = [span.start for span in rendered.spans]
    return rendered.loss_mask[starts].copy() if starts else np.zeros(0, dtype=np.bool_)
