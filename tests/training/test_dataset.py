from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from incatalog.data.catalog import Catalog
from incatalog.data.conversations import load_conversations
from incatalog.data.convert import convert_data
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.settings import ConvertSettings
from incatalog.dialogue.render import Renderer
from incatalog.errors import ConfigError, DataError
from incatalog.items.aliases import Aliases
from incatalog.items.tokens import ItemTokens
from incatalog.model.backbone import Backbone, base_model, output_rows
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.sasrec import SasRec, SasRecSizes
from incatalog.teacher.teacher import InProcessTeacher, load_teacher
from incatalog.teacher_service.client import HttpTeacher, open_served
from incatalog.training.collator import Collator
from incatalog.training.dataset import SftDataset, ValidationDataset
from incatalog.training.distillation import Asked, Distiller
from incatalog.training.general_chat import GeneralChat
from incatalog.training.losses import scoped_cross_entropy
from incatalog.training.samples import Sample, SampleSource
from incatalog.training.settings import SftSettings
from published_server import published, scores_of
from serving import served
from soft_spans import TableTeacher


class CountingTeacher(Popularity):
    """Popularity by row number that counts how often it is asked."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(np.arange(len(catalog), 0, -1), catalog)
        self.calls = 0

    def top_k(self, *args: Any, **options: Any) -> np.ndarray:
        self.calls += 1
        return super().top_k(*args, **options)


class Workshop:
    """Makes sources and decodes their samples."""

    def __init__(
        self, backbone: Backbone, catalog: Catalog, histories: Histories, chat_file: Path
    ) -> None:
        self.backbone = backbone
        self.catalog = catalog
        self.split = leave_one_out(histories)
        self.tokens = ItemTokens.from_titles(catalog.titles, backbone.tokenizer)
        self.renderer = Renderer(backbone.tokenizer, self.tokens)
        self.chat_file = chat_file
        self.config = SftSettings(
            model="tiny", data=Path("data"), out=Path("out"), history_form="span", max_history=4,
            list_length=5,
        )  # fmt: skip

    def source(
        self, *, teacher: Any = None, split: Any = None, chat: bool = False, **changes: Any
    ) -> SampleSource:
        config = replace(self.config, **changes)
        general = None
        if chat:
            general = GeneralChat.fit(
                load_conversations(self.chat_file), self.renderer, 200, self.chat_file
            )
        return SampleSource(
            split or self.split, self.catalog.titles, self.tokens, self.renderer, config,
            teacher=teacher, chat=general,
        )  # fmt: skip

    def text(self, sample: Sample) -> str:
        return self.backbone.tokenizer.decode(sample.rendered.input_ids)

    def collator(self) -> Collator:
        return Collator(
            self.tokens.trie(),
            eoi_token_id=self.backbone.eoi_token_id,
            pad_token_id=self.backbone.tokenizer.pad_token_id,
            scope="every",
        )


@pytest.fixture
def workshop(
    tiny_backbone: Backbone, catalog: Catalog, histories: Histories, chat_file: Path
) -> Workshop:
    return Workshop(tiny_backbone, catalog, histories, chat_file)


def everything(source: SampleSource, epoch: int = 0) -> list[Sample]:
    draws = source.draws(epoch)
    wanted = [(epoch, number) for number in range(source.per_epoch)]
    return source.train_samples(wanted, [draws] * len(wanted))


def answer_of(sample: Sample) -> list[int]:
    spans = sample.rendered.spans
    return [span.row for span in spans if sample.rendered.loss_mask[span.start]]


def history_of(sample: Sample) -> list[int]:
    spans = sample.rendered.spans
    return [span.row for span in spans if not sample.rendered.loss_mask[span.start]]


def same(first: Sample, second: Sample) -> bool:
    return bool(
        np.array_equal(first.rendered.input_ids, second.rendered.input_ids)
        and np.array_equal(first.rendered.loss_mask, second.rendered.loss_mask)
        and np.array_equal(first.trained, second.trained)
    )


def test_windows_end_before_the_target_and_never_touch_held_out_items(workshop: Workshop) -> None:
    source = workshop.source()
    seen_lengths = set()
    for epoch in range(3):
        for user, sample in zip(source.users.tolist(), everything(source, epoch), strict=True):
            items = workshop.split.train(user).tolist()
            (target,) = answer_of(sample)
            history = history_of(sample)
            place = items.index(target)
            assert place >= 1
            assert history == items[place - len(history) : place]
            seen_lengths.add(len(history))
    assert seen_lengths == {1, 2, 3, 4}


def test_targets_are_spread_over_the_training_items(workshop: Workshop) -> None:
    source = workshop.source()
    longest = int(np.argmax([len(workshop.split.train(user)) for user in source.users]))
    items = workshop.split.train(int(source.users[longest])).tolist()
    targets = {
        source.train_samples([(epoch, longest)], [source.draws(epoch)])[0].rendered.spans[-1].row
        for epoch in range(150)
    }
    assert targets == set(items[1:])


def test_answers_name_the_target_and_then_the_teachers_items(workshop: Workshop) -> None:
    teacher = CountingTeacher(workshop.catalog)
    source = workshop.source(teacher=teacher)
    lengths = set()
    for sample in everything(source):
        answer, history = answer_of(sample), history_of(sample)
        best = [row for row in range(len(workshop.catalog)) if row not in (*history, answer[0])]
        assert answer[1:] == best[: len(answer) - 1]
        assert f" {len(answer)} different items" in workshop.text(sample)
        lengths.add(len(answer))
    assert lengths == {1, 2, 3, 4, 5}


def test_teacher_is_asked_once_a_batch(workshop: Workshop) -> None:
    teacher = CountingTeacher(workshop.catalog)
    dataset = SftDataset(workshop.source(teacher=teacher), 64, 16, seed=0)
    dataset.__getitems__(list(range(16)))
    assert teacher.calls == 1
    ValidationDataset(workshop.source(teacher=teacher), 10, seed=0).__getitems__(list(range(10)))
    assert teacher.calls == 2


def test_fixed_list_length(workshop: Workshop) -> None:
    teacher = CountingTeacher(workshop.catalog)
    source = workshop.source(teacher=teacher, fixed_list_length=True)
    assert {len(answer_of(sample)) for sample in everything(source)} == {5}


def test_lists_are_shorter_where_the_catalog_ends(workshop: Workshop) -> None:
    count = len(workshop.catalog)
    teacher = CountingTeacher(workshop.catalog)
    source = workshop.source(teacher=teacher, fixed_list_length=True, list_length=count)
    for sample in everything(source):
        # The history is left out, unless the target is one of its items again.
        assert len(answer_of(sample)) == count - len(history_of(sample))


def test_sample_depends_on_its_index_alone(
    workshop: Workshop, data: Path, teacher: Path, histories: Histories
) -> None:
    network = load_teacher(teacher, Catalog.load(data), "cpu")
    options = {"chat": True, "chat_ratio": 0.5, "multi_round_ratio": 0.5, "candidate_ratio": 0.5}

    def dataset() -> SftDataset:
        return SftDataset(workshop.source(teacher=network, **options), 200, 8, seed=3)

    whole = dataset().__getitems__(list(range(200)))
    fresh = dataset()
    order = np.random.default_rng(0).permutation(200).tolist()
    for index in order[:60]:
        assert same(fresh[index], whole[index])
    other = SftDataset(workshop.source(teacher=network, seed=1, **options), 200, 8, seed=1)
    assert not all(same(other[index], whole[index]) for index in range(20))


def test_batches_of_a_served_teacher_are_those_of_one_in_this_process(
    workshop: Workshop, data: Path, teacher: Path
) -> None:
    catalog = Catalog.load(data)
    local = load_teacher(teacher, catalog, "cpu")
    options = {"chat": True, "multi_round_ratio": 0.5, "candidate_ratio": 0.5}
    with served(local, catalog) as url:
        for sees in ("window", "history"):
            sources = [
                workshop.source(teacher=each, teacher_sees=sees, **options)
                for each in (local, HttpTeacher(url, catalog))
            ]
            mine, theirs = [
                [
                    *SftDataset(source, 120, 8, seed=3).__getitems__(list(range(120))),
                    *source.validation_samples(source.users.tolist()),
                ]
                for source in sources
            ]
            assert all(same(*pair) for pair in zip(mine, theirs, strict=True))


def test_batches_of_a_published_server_are_those_of_our_service(
    workshop: Workshop, data: Path
) -> None:
    catalog = Catalog.load(data)
    # Its window is ten items, so that both see the same of a whole history.
    sizes = SasRecSizes(len(catalog), 10, hidden=16, inner=16, layers=1, heads=1, dropout=0.0)
    torch.manual_seed(2)
    network = SasRec(sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    local = InProcessTeacher(network, catalog)
    options = {"chat": True, "multi_round_ratio": 0.5, "candidate_ratio": 0.5}
    with served(local, catalog) as url, published(scores_of(local), catalog) as server:
        ours, theirs = open_served(url, catalog), open_served(server.url, catalog)
        for sees in ("window", "history"):
            mine, others = [
                everything(workshop.source(teacher=each, teacher_sees=sees, **options))
                for each in (ours, theirs)
            ]
            assert all(same(*pair) for pair in zip(mine, others, strict=True))
        assert len(server.asked) > 60
        # The lists come from the server: those of another teacher are others.
        changed = everything(workshop.source(teacher=CountingTeacher(catalog), **options))
        assert not all(same(*pair) for pair in zip(mine, changed, strict=True))


def test_epochs_visit_every_sample_once(workshop: Workshop) -> None:
    source = workshop.source(chat=True, chat_ratio=0.25)
    assert source.per_epoch == len(source.users) + round(0.25 * len(source.users))
    total = 3 * source.per_epoch
    dataset = SftDataset(source, total, 8, seed=0)
    size = 16 * 8
    order = [dataset._pool(index // size)[index % size] for index in range(total)]
    expected = [(epoch, number) for epoch in range(3) for number in range(source.per_epoch)]
    assert sorted(order) == expected


def test_batches_hold_samples_of_like_length(workshop: Workshop) -> None:
    teacher = CountingTeacher(workshop.catalog)
    dataset = SftDataset(workshop.source(teacher=teacher), 256, 8, seed=0)
    lengths = np.array(
        [len(sample.rendered.input_ids) for sample in dataset.__getitems__(list(range(256)))]
    )
    padded = lengths.reshape(-1, 8).max(1).sum() * 8
    shuffled = np.random.default_rng(0).permutation(lengths).reshape(-1, 8).max(1).sum() * 8
    assert (padded - lengths.sum()) < 0.25 * (shuffled - lengths.sum())
    means = lengths.reshape(-1, 8).mean(1)
    assert (np.diff(means[:16]) < 0).any()
    assert (np.diff(means[:16]) > 0).any()


def test_candidates_hold_the_answer_among_others(workshop: Workshop) -> None:
    teacher = CountingTeacher(workshop.catalog)
    source = workshop.source(
        teacher=teacher, candidate_ratio=1.0, max_candidates=9, loss_on_history=True
    )
    sizes = set()
    for user, sample in zip(source.users.tolist(), everything(source), strict=True):
        answer = answer_of(sample)
        shown = [
            (span.row, trained)
            for span, trained in zip(sample.rendered.spans, sample.trained, strict=True)
            if not sample.rendered.loss_mask[span.start]
        ]
        history = [row for row, trained in shown if trained]
        candidates = [row for row, trained in shown if not trained]
        items = workshop.split.train(user).tolist()
        place = items.index(answer[0])
        assert history == items[place - len(history) : place]
        assert set(answer) <= set(candidates)
        assert len(set(candidates)) == len(candidates) <= 9
        sizes.add(len(candidates))
        assert "candidate items are" in workshop.text(sample)
    assert len(sizes) > 3


def test_wordings_mention_control_tokens_only_if_asked(workshop: Workshop) -> None:
    plain = workshop.source(mention_control_tokens=False)
    assert not any("enclosed by" in workshop.text(sample) for sample in everything(plain))
    both = [("enclosed by" in workshop.text(sample)) for sample in everything(workshop.source())]
    assert 0 < sum(both) < len(both)


def test_general_exchange_comes_before_or_after(workshop: Workshop) -> None:
    source = workshop.source(chat=True, multi_round_ratio=1.0)
    before = after = 0
    for sample in everything(source):
        text = workshop.text(sample)
        assert text.count("Question") == text.count("Answer") == 1
        if text.index("Question") < text.index("historical"):
            before += 1
        else:
            after += 1
    assert before
    assert after
    half = workshop.source(chat=True, multi_round_ratio=0.5)
    count = sum("Question" in workshop.text(sample) for sample in everything(half))
    assert 0 < count < half.per_epoch


def test_whole_conversations_are_mixed_in(workshop: Workshop) -> None:
    source = workshop.source(chat=True, chat_ratio=1.0)
    general = everything(source)[len(source.users) :]
    assert len(general) == len(source.users)
    for sample in general:
        assert not sample.rendered.spans
        assert "Question" in workshop.text(sample)
        assert sample.rendered.loss_mask.any()


def test_conversations_are_cut_by_exchanges_and_counted(workshop: Workshop) -> None:
    conversations = load_conversations(workshop.chat_file)
    chat = GeneralChat.fit(conversations, workshop.renderer, 60, workshop.chat_file)
    assert (chat.cut, chat.dropped) == (5, 0)
    assert {len(messages) for messages in chat.conversations} == {2}
    assert chat.lengths.max() <= 60
    with pytest.raises(DataError, match=r"chat.json: none of 5 conversations .*--max-length"):
        GeneralChat.fit(conversations, workshop.renderer, 10, workshop.chat_file)


def test_long_histories_are_cut_oldest_first_and_counted(workshop: Workshop) -> None:
    whole = everything(workshop.source())
    longest = max(len(sample.rendered.input_ids) for sample in whole)
    cut = everything(workshop.source(max_length=longest - 1))
    assert sum(sample.cut for sample in cut) > 0
    for before, after in zip(whole, cut, strict=True):
        assert len(after.rendered.input_ids) < longest
        assert history_of(after) == history_of(before)[after.cut :]
        assert answer_of(after) == answer_of(before)
    batch = workshop.collator()(cut)
    assert batch["cut"] == sum(sample.cut for sample in cut)
    with pytest.raises(ConfigError, match="--max-length 20"):
        everything(workshop.source(max_length=20))


def test_loss_on_history_trains_exactly_the_shown_items(workshop: Workshop) -> None:
    for sample in everything(workshop.source(loss_on_history=True)):
        assert sample.trained.all()
    for sample in everything(workshop.source()):
        assert sample.trained.tolist() == [False] * len(history_of(sample)) + [True]


def test_titles_in_the_history_leave_spans_to_the_answer(workshop: Workshop) -> None:
    for sample in everything(workshop.source(history_form="title")):
        assert len(sample.rendered.spans) == 1
        assert "'" in workshop.text(sample)


def test_items_of_the_history_are_left_out(workshop: Workshop) -> None:
    whole = workshop.source(teacher=CountingTeacher(workshop.catalog))
    teacher = CountingTeacher(workshop.catalog)
    thinned = workshop.source(teacher=teacher, history_dropout=0.5, teacher_sees="history")
    shown, kept = 0, 0
    for epoch in range(4):
        for first, second in zip(everything(whole, epoch), everything(thinned, epoch), strict=True):
            before, after = history_of(first), history_of(second)
            assert after
            remaining = iter(before)
            assert all(row in remaining for row in after)
            assert answer_of(first)[0] == answer_of(second)[0]
            assert not set(answer_of(second)[1:]) & set(before)
            shown, kept = shown + len(before), kept + len(after)
    # Half of the items, and one more where none would be left or at random.
    assert 0.5 < kept / shown < 0.8
    assert same(everything(thinned, 3)[2], everything(thinned, 3)[2])
    every = workshop.source(history_dropout=1.0)
    assert {len(history_of(sample)) for sample in everything(every)} == {1}


def test_validation_asks_for_the_held_out_item(workshop: Workshop) -> None:
    source = workshop.source(teacher=CountingTeacher(workshop.catalog))
    dataset = ValidationDataset(source, 12, seed=0)
    assert len(dataset) == 12
    assert same(dataset[3], dataset.__getitems__([1, 3])[1])
    for index in range(12):
        held_out = workshop.split.valid(dataset._users[index])
        sample = dataset[index]
        assert answer_of(sample)[0] == held_out.target
        assert history_of(sample) == held_out.history[-4:].tolist()


def test_users_with_one_training_item_are_left_out(
    workshop: Workshop, histories: Histories
) -> None:
    assert workshop.source().users.tolist() == list(range(1, len(histories)))
    short = leave_one_out(Histories.from_lists(["a", "b"], [[1, 2, 3], [4, 5, 6]]))
    with pytest.raises(DataError, match="expected users with at least four"):
        workshop.source(split=short)


def mean_loss(workshop: Workshop, samples: Sequence[Sample]) -> tuple[float, int]:
    batch = workshop.collator()(samples)
    model = workshop.backbone.model
    with torch.no_grad():
        hidden = base_model(model)(input_ids=batch["input_ids"]).last_hidden_state
        weight, bias = output_rows(model)
        loss = scoped_cross_entropy(hidden, weight, batch["targets"], bias=bias)
    return loss.item(), int(batch["num_labels"])


def test_padding_changes_no_loss(workshop: Workshop) -> None:
    source = workshop.source(teacher=CountingTeacher(workshop.catalog), loss_on_history=True)
    samples = everything(source)[:6]
    together, count = mean_loss(workshop, samples)
    alone = [mean_loss(workshop, [sample]) for sample in samples]
    assert count == sum(number for _, number in alone)
    expected = sum(loss * number for loss, number in alone) / count
    assert together == pytest.approx(expected, rel=1e-5)


class Spelled:
    """Sources over titles of which the first thirty have two other names, the next ten one."""

    def __init__(self, workshop: Workshop) -> None:
        catalog, tokenizer = workshop.catalog, workshop.backbone.tokenizer
        self.count = len(catalog)
        self.aliases = Aliases(
            tuple(sorted([*range(30), *range(40)])),
            tuple(f"Film {number}" for number in range(70)),
        )
        self.tokens = workshop.tokens.joined(ItemTokens.from_titles(self.aliases.texts, tokenizer))
        self.item = np.array(self.aliases.items(self.count))
        self.renderer = Renderer(tokenizer, self.tokens)
        self.workshop = workshop

    def source(self, *, teacher: Any = None, **changes: Any) -> SampleSource:
        settings = {"paraphrases": Path("paraphrases.jsonl"), "loss_on_history": True} | changes
        return SampleSource(
            self.workshop.split,
            self.workshop.catalog.titles,
            self.workshop.tokens,
            self.renderer,
            replace(self.workshop.config, **settings),
            teacher=teacher or CountingTeacher(self.workshop.catalog),
            aliases=self.aliases,
        )

    def items(self, rows: Sequence[int]) -> list[int]:
        return self.item[list(rows)].tolist()


@pytest.fixture
def spelled(workshop: Workshop) -> Spelled:
    return Spelled(workshop)


@pytest.mark.parametrize("place", ["history", "targets", "both"])
def test_names_stand_where_the_switch_says(spelled: Spelled, place: Any) -> None:
    titles_only = spelled.source(paraphrase_ratio=0.0)
    always = spelled.source(paraphrases_in=place, paraphrase_ratio=1.0)
    for epoch in range(2):
        plain, samples = everything(titles_only, epoch), everything(always, epoch)
        for own, sample in zip(plain, samples, strict=True):
            history, answer = history_of(sample), answer_of(sample)
            assert spelled.items(history) == history_of(own)
            assert spelled.items(answer) == answer_of(own)
            for rows, named in ((history, place != "targets"), (answer, place != "history")):
                for row, item in zip(rows, spelled.items(rows), strict=True):
                    assert (row >= spelled.count) == (named and item < 40)
            # A name that is no target carries no loss, a title of the history does.
            for span, trained in zip(sample.rendered.spans, sample.trained.tolist(), strict=True):
                assert trained == (place != "history" or span.row < spelled.count)


def test_each_occurrence_draws_a_name_and_a_sample_is_a_function_of_its_number(
    spelled: Spelled,
) -> None:
    source = spelled.source(paraphrases_in="both", paraphrase_ratio=0.5)
    rows = [row for epoch in range(4) for sample in everything(source, epoch)
            for row in [*history_of(sample), *answer_of(sample)]]  # fmt: skip
    two, one = ([row for row in rows if low <= spelled.item[row] < high]
                for low, high in ((0, 30), (30, 40)))  # fmt: skip
    for known in (two, one):
        share = np.mean([row >= spelled.count for row in known])
        assert share == pytest.approx(0.5, abs=0.06)
    # Both names of an item come equally often.
    first = {min(numbers) + spelled.count for numbers in spelled.aliases.of_row.values()}
    others = [row for row in two if row >= spelled.count]
    assert np.mean([row in first for row in others]) == pytest.approx(0.5, abs=0.06)
    again = spelled.source(paraphrases_in="both", paraphrase_ratio=0.5)
    draws = again.draws(2)
    wanted = [(2, 7), (2, 3)]
    for (epoch, number), sample in zip(
        wanted, again.train_samples(wanted, [draws, draws]), strict=True
    ):
        assert same(sample, everything(source, epoch)[number])
    assert not all(map(same, everything(source, 0), everything(spelled.source(
        paraphrases_in="both", paraphrase_ratio=0.5, seed=1), 0)))  # fmt: skip


def test_candidates_and_validation_take_titles(spelled: Spelled) -> None:
    source = spelled.source(
        paraphrases_in="both", paraphrase_ratio=1.0, candidate_ratio=1.0, loss_on_history=False
    )
    for sample in source.validation_samples(source.users[:5].tolist()):
        assert all(span.row < spelled.count for span in sample.rendered.spans)
    users = source.users.tolist()
    for user, sample in zip(users, everything(source), strict=True):
        shown = history_of(sample)
        titles = [row for row in shown if row < spelled.count]
        # The candidates are the titles, but for items of the history that have no other name.
        history = set(spelled.workshop.split.train(user).tolist())
        others = [row for row in titles if row < 40 or row not in history]
        assert len(set(others)) == len(others)
        assert set(spelled.items(answer_of(sample))) <= set(titles)


def test_names_of_the_targets_have_leaves_of_their_own_and_others_none(spelled: Spelled) -> None:
    backbone = spelled.workshop.backbone
    for place, trie in (
        ("history", spelled.workshop.tokens.trie()),
        ("both", spelled.tokens.trie(spelled.item.tolist())),
    ):
        source = spelled.source(paraphrases_in=place, paraphrase_ratio=0.7)
        collator = Collator(
            trie,
            eoi_token_id=backbone.eoi_token_id,
            pad_token_id=backbone.tokenizer.pad_token_id,
            scope="every",
        )
        batch = collator(everything(source)[:8])
        states = base_model(backbone.model)(batch["input_ids"]).last_hidden_state
        weight, bias = output_rows(backbone.model)
        loss = scoped_cross_entropy(states, weight, batch["targets"], bias=bias)
        assert loss.isfinite()


def test_every_prefix_of_every_user_is_a_sample_of_each_epoch(workshop: Workshop) -> None:
    teacher = CountingTeacher(workshop.catalog)
    source = workshop.source(teacher=teacher, window="every-prefix", history_dropout=0.3)
    whole = workshop.source(window="every-prefix")
    prefixes = [
        (items[max(0, end - 4) : end], items[end])
        for user in source.users.tolist()
        for items in [workshop.split.train(user).tolist()]
        for end in range(1, len(items))
    ]
    assert source.per_epoch == whole.per_epoch == len(prefixes)
    found = [(history_of(sample), answer_of(sample)[0]) for sample in everything(whole, 2)]
    assert found == prefixes
    # Samples of one user do not share what chance decides.
    thinned = [history_of(sample) for sample in everything(source)]
    for (history, _), kept in zip(prefixes, thinned, strict=True):
        remaining = iter(history)
        assert kept
        assert all(row in remaining for row in kept)
    masks = {
        tuple(row in kept for row in history)
        for (history, _), kept in zip(prefixes, thinned, strict=True)
        if history == history[:4] and len(history) == 4
    }
    assert len(masks) > 8
    dataset = SftDataset(source, 2 * source.per_epoch, 8, seed=0)
    seen = [dataset._pool(n // 128)[n % 128] for n in range(2 * source.per_epoch)]
    assert sorted(seen) == [(e, n) for e in range(2) for n in range(source.per_epoch)]
    assert len(source.estimated_lengths(source.draws(0))) == source.per_epoch
    mixed = workshop.source(window="every-prefix", chat=True, chat_ratio=0.5)
    assert mixed.per_epoch == len(prefixes) + round(0.5 * len(prefixes))
    assert not everything(mixed)[-1].rendered.spans


def knowing(workshop: Workshop, seed: int = 0) -> TableTeacher:
    """A teacher of random scores for the films."""
    count = len(workshop.catalog)
    return TableTeacher(np.random.default_rng(seed).normal(size=(count, count)).astype(np.float32))


def soft_of(sample: Sample) -> list[tuple[float, list[int]]]:
    """How hard the target of each trained span is, and what it lists."""
    soft = sample.soft
    assert soft is not None
    bounds = itertools.pairwise(soft.offsets.tolist())
    rows = [soft.rows[start:end].tolist() for start, end in bounds]
    return list(zip(soft.hard.tolist(), rows, strict=True))


def test_the_teacher_sees_what_the_prompt_shows_before_each_item(workshop: Workshop) -> None:
    options = {"distill": 0.8, "distill_items": 8, "loss_on_history": True}
    for more in ({}, {"history_dropout": 0.4}, {"teacher_sees": "history"}):
        teacher = knowing(workshop)
        source = workshop.source(teacher=teacher, **options, **more)
        samples = everything(source)
        ((count, left_out),) = teacher.asked
        assert left_out
        assert count >= len({tuple(history_of(sample)) for sample in samples})
        other = Distiller(knowing(workshop), workshop.split, share=0.8, temperature=1.0, best=8)
        for user, sample in zip(source.users.tolist(), samples, strict=True):
            history, answer = history_of(sample), answer_of(sample)
            found = soft_of(sample)
            assert len(found) == sample.trained.sum() == len(history) + len(answer)
            assert found[0] == (1.0, [])
            for end in range(1, len(history) + 1):
                asked = Asked(user, tuple(history[:end]))
                expected = other.expected([asked])[asked]
                hard, rows = found[end]
                assert rows[: len(expected.best)] == expected.best.tolist()
                assert set(history[:end]) <= set(rows)
                assert hard == (0.0 if end == len(history) else pytest.approx(0.2))


def test_answers_begin_with_drawn_items_and_go_on_with_the_teachers_best(
    workshop: Workshop,
) -> None:
    source = workshop.source(teacher=knowing(workshop), distill=0.5, fixed_list_length=True)
    plain = workshop.source(teacher=knowing(workshop), fixed_list_length=True)
    drawn = 0
    for epoch in range(6):
        for sample, own in zip(everything(source, epoch), everything(plain, epoch), strict=True):
            history, answer, target = history_of(sample), answer_of(sample), answer_of(own)[0]
            assert history == history_of(own)
            assert len(set(answer)) == 5
            assert not set(answer) & (set(history) - {target})
            drawn += answer[0] != target
            if answer[0] == target:
                # Nothing is counted by the plain teacher's lists that was left out of the others.
                assert len(answer_of(own)) == 5
            assert not sample.trained[: len(history)].any()
            assert len(soft_of(sample)) == 5
    assert 0.35 < drawn / (6 * source.per_epoch) < 0.55
    always = workshop.source(teacher=knowing(workshop), distill=1.0)
    firsts = [answer_of(sample)[0] for sample in everything(always)]
    targets = [answer_of(sample)[0] for sample in everything(workshop.source())]
    assert sum(map(operator.ne, firsts, targets)) > 0.8 * len(firsts)


def test_soft_targets_depend_on_the_index_alone(workshop: Workshop) -> None:
    options = {
        "distill": 0.8, "loss_on_history": True, "chat": True, "chat_ratio": 0.5,
        "candidate_ratio": 0.3, "window": "every-prefix",
    }  # fmt: skip

    def dataset() -> SftDataset:
        return SftDataset(workshop.source(teacher=knowing(workshop), **options), 200, 8, seed=3)

    whole = dataset().__getitems__(list(range(200)))
    fresh = dataset()
    for index in np.random.default_rng(0).permutation(200).tolist()[:60]:
        sample = fresh[index]
        assert same(sample, whole[index])
        first, second = sample.soft, whole[index].soft
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            for name in vars(first):
                assert np.array_equal(getattr(first, name), getattr(second, name))


def test_soft_targets_of_a_served_teacher_are_those_of_one_in_this_process(
    workshop: Workshop, data: Path, teacher: Path
) -> None:
    catalog = Catalog.load(data)
    local = load_teacher(teacher, catalog, "cpu")
    options = {"distill": 0.8, "loss_on_history": True}
    with served(local, catalog) as url:
        mine, theirs = [
            everything(workshop.source(teacher=each, **options))
            for each in (local, HttpTeacher(url, catalog))
        ]
    for one, other in zip(mine, theirs, strict=True):
        assert same(one, other)
        assert one.soft is not None
        assert other.soft is not None
        np.testing.assert_array_equal(one.soft.rows, other.soft.rows)
        np.testing.assert_allclose(one.soft.share, other.soft.share, rtol=1e-5)


def test_offered_candidates_and_validation_keep_what_is_written(workshop: Workshop) -> None:
    source = workshop.source(
        teacher=knowing(workshop), distill=0.8, candidate_ratio=1.0, loss_on_history=True
    )
    plain = everything(workshop.source(teacher=knowing(workshop), candidate_ratio=1.0))
    for sample, own in zip(everything(source), plain, strict=True):
        assert answer_of(sample)[0] == answer_of(own)[0]
        count = len(answer_of(sample))
        found = soft_of(sample)
        assert len(found) == sample.trained.sum()
        assert found[-count:] == [(1.0, [])] * count
        assert all(rows for hard, rows in found[1:-count])
    for sample in source.validation_samples(source.users.tolist()):
        assert sample.soft is None


def test_how_much_the_listed_items_have_is_said(workshop: Workshop) -> None:
    source = workshop.source(teacher=knowing(workshop), distill=0.5, distill_items=6)
    shares = []
    for user in source.users.tolist():
        history = workshop.split.train(user)[-4:]
        made = knowing(workshop)
        logits = made.log_probabilities([history], left_out=[workshop.split.train(user)])[0]
        logits[history] = -np.inf
        weights = np.sort(np.exp(logits.astype(np.float64)))[::-1]
        shares.append(weights[:6].sum() / weights.sum())
    assert source.listed_share() == pytest.approx(np.mean(shares), rel=1e-4)
    assert workshop.source(teacher=knowing(workshop)).listed_share() is None


def test_the_teacher_sees_a_history_that_was_cut(workshop: Workshop) -> None:
    options = {"distill": 0.8, "loss_on_history": True, "distill_items": 6}
    whole = everything(workshop.source(teacher=knowing(workshop), **options))
    longest = max(len(sample.rendered.input_ids) for sample in whole)
    teacher = knowing(workshop)
    source = workshop.source(teacher=teacher, max_length=longest - 1, **options)
    samples = everything(source)
    assert any(sample.cut for sample in samples)
    assert len(teacher.asked) == 2
    for sample in samples:
        history, found = history_of(sample), soft_of(sample)
        assert len(found) == sample.trained.sum()
        # Items that were cut are no history of what is left.
        for end, (_, rows) in enumerate(found[: len(history)]):
            assert set(rows[6:]) == set(history[:end])


def test_distilled_batches_have_finite_losses_with_other_names_too(spelled: Spelled) -> None:
    backbone = spelled.workshop.backbone
    for place, trie in (
        ("history", spelled.workshop.tokens.trie()),
        ("both", spelled.tokens.trie(spelled.item.tolist())),
    ):
        source = spelled.source(
            teacher=knowing(spelled.workshop), distill=0.8, paraphrases_in=place,
            paraphrase_ratio=0.7,
        )  # fmt: skip
        collator = Collator(
            trie,
            eoi_token_id=backbone.eoi_token_id,
            pad_token_id=backbone.tokenizer.pad_token_id,
            scope="every",
            alias_ratio=0.7,
        )
        batch = collator(everything(source)[:8])
        assert batch["targets"].soft is not None
        states = base_model(backbone.model)(batch["input_ids"]).last_hidden_state
        weight, bias = output_rows(backbone.model)
        loss = scoped_cross_entropy(states, weight, batch["targets"], bias=bias)
        assert loss.isfinite()


@pytest.mark.parametrize(("least", "most"), [(9, 9), (7, 8), (2, 6)])
def test_candidate_lists_have_the_length_that_is_set(
    workshop: Workshop, least: int, most: int
) -> None:
    teacher = CountingTeacher(workshop.catalog)
    source = workshop.source(
        teacher=teacher, candidate_ratio=1.0, min_candidates=least, max_candidates=most
    )
    sizes = set()
    for sample in everything(source):
        answer, shown = answer_of(sample), history_of(sample)
        _, behind = workshop.text(sample).split("The candidate items are: ")
        # Two of those that mention the tokens do so once more.
        offered = behind.count("<SOI>") - 2 * behind.count("enclosed by") - len(answer)
        sizes.add(offered)
        assert max(least, len(answer)) <= offered <= most
        assert len(shown) > offered
    assert sizes == set(range(least, most + 1))


def test_every_sample_begins_with_the_system_message(workshop: Workshop) -> None:
    """Recommendations and general conversations alike, and validation samples too."""
    said = "You know films."
    plain = workshop.source(chat=True, chat_ratio=0.5, multi_round_ratio=0.5)
    workshop.renderer = Renderer(workshop.backbone.tokenizer, workshop.tokens, said)
    source = workshop.source(chat=True, chat_ratio=0.5, multi_round_ratio=0.5)
    pairs = list(zip(everything(plain), everything(source), strict=True))
    pairs += zip(*(one.validation_samples([3, 4]) for one in (plain, source)), strict=True)
    for before, sample in pairs:
        text = workshop.text(sample)
        assert text.count(said) == 1
        assert text.replace(said, "", 1) != text
        assert said not in workshop.text(before)
        assert text.index(said) < 40
        ids, mask = before.rendered.input_ids, before.rendered.loss_mask
        own, trained = sample.rendered.input_ids, sample.rendered.loss_mask
        assert ids[mask].tolist() == own[trained].tolist()


def test_samples_of_parquet_are_those_of_json(workshop, data, tmp_path) -> None:
    folder = convert_data(ConvertSettings(data, tmp_path / "parquet"))
    found = []
    for one in (data, folder):
        catalog = Catalog.load(one, "items")
        histories = Histories.load(one, catalog)
        shop = Workshop(workshop.backbone, catalog, histories, workshop.chat_file)
        source = shop.source(paraphrases_in="targets")
        dataset = SftDataset(source, 2 * source.per_epoch, 4, seed=3)
        found.append(dataset.__getitems__(range(len(dataset))))
        held_out = ValidationDataset(source, 20, seed=3)
        found[-1] += held_out.__getitems__(range(len(held_out)))
    assert found[0]
    for own, other in zip(*found, strict=True):
        assert own.rendered.input_ids.tolist() == other.rendered.input_ids.tolist()
        assert own.rendered.spans == other.rendered.spans
        assert (own.trained.tolist(), own.cut) == (other.trained.tolist(), other.cut)
