"""Training samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from incatalog.data.interactions import LeaveOneOut
from incatalog.dialogue.render import Message, Rendered, Renderer
from incatalog.dialogue.tasks import fit_history, num_tokens, recommend_messages, with_exchange
from incatalog.dialogue.templates import ALIGNMENT_WORDINGS, Wording, wordings
from incatalog.errors import DataError
from incatalog.items.aliases import Aliases
from incatalog.items.tokens import ItemTokens
from incatalog.teacher.teacher import Teacher
from incatalog.training.alignment import Alignment
from incatalog.training.draws import CANDIDATES, DRAWS, DROPPED, SPELLINGS, VALIDATION, Draws
from incatalog.training.general_chat import GeneralChat
from incatalog.training.settings import SampleSettings

# Tokens that come with an item: those that open and close its span, and what stands between items.
_AROUND_ITEM = 5


# Stands for the epoch of samples that chance has no part in.
_NO_EPOCH = -1


@dataclass(frozen=True)
class Sample:
    """A rendered conversation and what of it is trained."""

    rendered: Rendered  # Token ids, loss mask and spans
    trained: Bool[np.ndarray, " spans"]  # Item spans that carry loss
    cut: int  # History items left out to fit the length


@dataclass(frozen=True)
class _Task:
    """One recommendation to render."""

    user: int
    history: list[int]
    past: list[int]
    target: int
    list_length: int
    wording: Wording
    exchange: tuple[Message, ...] | None
    before: bool
    epoch: int


class SampleSource:
    """Makes recommendation, general and alignment samples.

    A sample of the training shows a random window of a user's training items and asks for the item
    behind it: the target is uniform over all but the first item, the start of the window uniform
    over the ``max_history`` items before the target (arXiv 2505.03336) or the first of them;
    ``history_dropout`` leaves items of the window out. The answer names the target first and the
    teacher's best items behind it, none of them among the items the teacher was shown. Where an
    item has aliases, one may stand in place of its title, drawn anew at each occurrence; what only
    prompts may show carries no loss. Candidate lists and validation samples take titles.
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
        """Takes what samples are made of."""
        self._split = split
        aliases = aliases or Aliases()
        self._num_items = len(titles)
        self._titles = (*titles, *aliases.texts)
        self._aliases_of = {
            row: [self._num_items + number for number in numbers]
            for row, numbers in aliases.of_row.items()
        }
        self._renderer = renderer
        self._config = settings
        self._teacher = teacher
        self._chat = chat
        self._alignment = alignment
        lengths = np.array([len(split.train(user)) for user in range(len(split))], dtype=np.int64)
        self.users = np.flatnonzero(lengths >= 2)
        self._lengths = lengths[self.users]
        if not len(self.users):
            raise DataError(
                "no user has two items besides the two held out; expected users with at least four"
            )
        self._wordings = wordings(
            "train", mention_control_tokens=settings.mention_control_tokens, candidates=False
        )
        self._plain = len(self._wordings)
        if settings.candidate_ratio > 0:
            self._wordings += wordings(
                "train", mention_control_tokens=settings.mention_control_tokens, candidates=True
            )
        sizes = np.diff(item_tokens.offsets) + _AROUND_ITEM
        self._average_size = float(sizes.mean())
        self._size_until = np.concatenate([[0], np.cumsum(sizes[split.histories.rows])])
        self._wording_lengths = np.array([self._length_of(wording) for wording in self._wordings])
        self.num_general = 0
        if chat is not None:
            self.num_general = round(settings.chat_ratio * len(self.users))
        self.num_aligned = 0
        if alignment is not None:
            self.num_aligned = round(settings.align_ratio * len(self.users))

    @property
    def per_epoch(self) -> int:
        """Samples of one epoch."""
        return len(self.users) + self.num_general + self.num_aligned

    def draws(self, epoch: int) -> Draws:
        """What chance decides in an epoch."""
        settings = self._config
        rng = np.random.default_rng([settings.seed, DRAWS, epoch])
        count = len(self.users)
        target = rng.integers(1, self._lengths)
        oldest = np.maximum(0, target - settings.max_history)
        start = rng.integers(oldest, target)
        if settings.window == "full":
            start = oldest
        shortest = settings.list_length if settings.fixed_list_length else 1
        list_length = rng.integers(shortest, settings.list_length + 1, size=count)
        if self._teacher is None:
            list_length = np.ones(count, dtype=np.int64)
        wording = rng.integers(0, self._plain, size=count)
        if settings.candidate_ratio > 0:
            offering = rng.integers(self._plain, len(self._wordings), size=count)
            wording = np.where(rng.random(count) < settings.candidate_ratio, offering, wording)
        exchange = np.full(count, -1, dtype=np.int64)
        before = np.zeros(count, dtype=np.bool_)
        conversation = np.zeros(0, dtype=np.int64)
        if self._chat is not None:
            chosen = rng.integers(0, len(self._chat.exchanges), size=count)
            exchange = np.where(rng.random(count) < settings.multi_round_ratio, chosen, -1)
            before = rng.random(count) < 0.5
            conversation = rng.integers(
                0, len(self._chat.conversations), size=self.num_general, dtype=np.int64
            )
        aligned = rng.integers(0, self._num_items, size=self.num_aligned)
        alignment = rng.integers(0, len(ALIGNMENT_WORDINGS), size=self.num_aligned)
        return Draws(
            target,
            start,
            list_length,
            wording,
            exchange,
            before,
            conversation,
            aligned,
            alignment,
        )

    def estimated_lengths(self, draws: Draws) -> Int64[np.ndarray, " samples"]:
        """Roughly the tokens of each sample of an epoch, to put like beside like."""
        first = self._split.histories.offsets[self.users]
        size_until = self._size_until
        # The teacher is not asked yet, so its items count as average ones.
        estimate: Int64[np.ndarray, " users"] = (
            size_until[first + draws.target + 1]
            - size_until[first + draws.start]
            + ((draws.list_length - 1) * self._average_size).astype(np.int64)
            + self._wording_lengths[draws.wording]
        )
        lengths = [estimate]
        if self._chat is not None:
            lengths.append(self._chat.lengths[draws.conversation])
        if self._alignment is not None:
            lengths.append(self._alignment.lengths[draws.alignment, draws.aligned])
        return np.concatenate(lengths).astype(np.int64)

    def train_samples(
        self, wanted: Sequence[tuple[int, int]], draws: Sequence[Draws]
    ) -> list[Sample]:
        """Samples of the training."""
        samples: dict[int, Sample] = {}
        places: list[int] = []
        tasks: list[_Task] = []
        for place, ((epoch, number), drawn) in enumerate(zip(wanted, draws, strict=True)):
            if number < len(self.users):
                places.append(place)
                tasks.append(self._task(epoch, number, drawn))
                continue
            rendered = self._renderer.conversation(self._other(number - len(self.users), drawn))
            samples[place] = Sample(rendered, _written(rendered), 0)
        samples.update(zip(places, self._rendered(tasks), strict=True))
        return [samples[place] for place in range(len(wanted))]

    def validation_samples(self, users: Sequence[int]) -> list[Sample]:
        """For each user the validation item behind the newest of the items before it."""
        settings = self._config
        tasks: list[_Task] = []
        for user in users:
            held_out = self._split.valid(user)
            rng = np.random.default_rng([settings.seed, VALIDATION, user])
            shortest = settings.list_length if settings.fixed_list_length else 1
            length = int(rng.integers(shortest, settings.list_length + 1))
            tasks.append(
                _Task(
                    user=user,
                    history=held_out.history[-settings.max_history :].tolist(),
                    past=held_out.history.tolist(),
                    target=int(held_out.target),
                    list_length=1 if self._teacher is None else length,
                    wording=self._wordings[0],
                    exchange=None,
                    before=False,
                    epoch=_NO_EPOCH,
                )
            )
        return self._rendered(tasks)

    def _length_of(self, wording: Wording) -> int:
        """Tokens of a request without its items."""
        offered = (
            range(min(self._config.max_candidates // 2, self._num_items))
            if wording.offers_candidates
            else None
        )
        settings = self._config
        messages = recommend_messages(
            wording, (), 1, (), self._titles, settings.shown_history, settings.list_form, offered
        )
        return num_tokens(self._renderer, messages)

    def _other(self, number: int, drawn: Draws) -> tuple[Message, ...]:
        """A sample that recommends nothing: general conversations first, then alignment."""
        if number < self.num_general:
            assert self._chat is not None
            return self._chat.conversations[drawn.conversation[number]]
        assert self._alignment is not None
        place = number - self.num_general
        return self._alignment.messages(int(drawn.alignment[place]), int(drawn.aligned[place]))

    def _task(self, epoch: int, number: int, drawn: Draws) -> _Task:
        user = int(self.users[number])
        items = self._split.train(user)
        target = int(drawn.target[number])
        exchange = int(drawn.exchange[number])
        chat = self._chat
        return _Task(
            user=user,
            history=self._kept(items[int(drawn.start[number]) : target].tolist(), epoch, user),
            past=items[:target].tolist(),
            target=int(items[target]),
            list_length=int(drawn.list_length[number]),
            wording=self._wordings[int(drawn.wording[number])],
            exchange=None if exchange < 0 or chat is None else chat.exchanges[exchange],
            before=bool(drawn.before[number]),
            epoch=epoch,
        )

    def _kept(self, history: list[int], epoch: int, user: int) -> list[int]:
        """What is shown of a history: all of it but for items left out, and never nothing."""
        share = self._config.history_dropout
        if not share:
            return history
        random = np.random.default_rng((self._config.seed, DROPPED, epoch, user))
        kept = random.random(len(history)) >= share
        kept[random.integers(len(history))] = True
        return [row for row, stays in zip(history, kept, strict=True) if stays]

    def _rendered(self, tasks: Sequence[_Task]) -> list[Sample]:
        return [
            self._render(task, answer)
            for task, answer in zip(tasks, self._answers(tasks), strict=True)
        ]

    def _answers(self, tasks: Sequence[_Task]) -> list[list[int]]:
        """The target first, then the teacher's items; the teacher is asked once."""
        if self._teacher is None or not tasks:
            return [[task.target] for task in tasks]
        longest = max(task.list_length for task in tasks)
        known = [task.history for task in tasks]
        if self._config.teacher_sees == "history":
            known = [task.past for task in tasks]
        best = self._teacher.top_k(known, longest)
        return [
            [task.target, *(row for row in rows if row not in (task.target, -1))][
                : task.list_length
            ]
            for task, rows in zip(tasks, best.tolist(), strict=True)
        ]

    def _render(self, task: _Task, answer: list[int]) -> Sample:
        settings = self._config
        candidates = self._candidates(task, answer) if task.wording.offers_candidates else None
        history, named = self._spelled(task, answer)

        def build(history: Sequence[int]) -> tuple[Message, ...]:
            messages = recommend_messages(
                task.wording,
                history,
                len(named),
                named,
                self._titles,
                settings.shown_history,
                settings.list_form,
                candidates,
            )
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
            shown = np.flatnonzero(~trained)
            count = len(history) - cut
            instruction = task.wording.instruction
            candidates_first = candidates is not None and instruction.index(
                "{candidates}"
            ) < instruction.index("{history}")
            trained[shown[len(shown) - count :] if candidates_first else shown[:count]] = True
            if settings.paraphrases_in == "history":
                trained &= [span.row < self._num_items for span in rendered.spans]
        return Sample(rendered, trained, cut)

    def _spelled(self, task: _Task, answer: list[int]) -> tuple[list[int], list[int]]:
        """Rows of the names under which the items of a sample stand in history and answer."""
        if not self._aliases_of or task.epoch == _NO_EPOCH:
            return task.history, answer
        settings = self._config
        rng = np.random.default_rng([settings.seed, SPELLINGS, task.epoch, task.user])
        history, named = task.history, answer
        if settings.paraphrases_in != "targets":
            history = [self._name(row, rng) for row in history]
        if settings.paraphrases_in != "history":
            named = [self._name(row, rng) for row in named]
        return history, named

    def _name(self, row: int, rng: np.random.Generator) -> int:
        """Row of a name of an item: its title, or one of its aliases."""
        others = self._aliases_of.get(row)
        if others is None or rng.random() >= self._config.paraphrase_ratio:
            return row
        return others[int(rng.integers(len(others)))]

    def _candidates(self, task: _Task, answer: list[int]) -> list[int]:
        """The answer among random other items, in random order."""
        rng = np.random.default_rng([self._config.seed, CANDIDATES, task.epoch, task.user])
        size = min(int(rng.integers(len(answer), self._config.max_candidates + 1)), self._num_items)
        candidates = dict.fromkeys(answer)
        while len(candidates) < size:
            candidates.update(
                dict.fromkeys(rng.integers(self._num_items, size=size - len(candidates)).tolist())
            )
        return [list(candidates)[place] for place in rng.permutation(len(candidates))]


def _written(rendered: Rendered) -> Bool[np.ndarray, " spans"]:
    """Spans the assistant writes."""
    starts = [span.start for span in rendered.spans]
    return rendered.loss_mask[starts].copy() if starts else np.zeros(0, dtype=np.bool_)
