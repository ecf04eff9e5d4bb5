from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from incatalog import Catalog, Item, Recommender
from incatalog.codes.semantic_ids import SemanticIds
from incatalog.constraint.excluded import ExcludedItems
from incatalog.decoding.request import Slot
from incatalog.errors import ArtifactError, CatalogError, ConfigError, TeacherError
from incatalog.model.backbone import Backbone, add_codes
from incatalog.model.head import RetrievalHead
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.recommender.command import recommend
from incatalog.recommender.guide import Guide, item_weights
from incatalog.recommender.guide_folder import GuideChoice, own_guide_files, save_guide
from incatalog.recommender.items import ModelItems
from incatalog.recommender.neighbours import NEAREST, Neighbours
from incatalog.recommender.settings import RecommendSettings
from incatalog.teacher.sasrec import WEIGHTS_FILE, SasRec, SasRecSizes, save_network
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher.teacher import InProcessTeacher, load_teacher


def make_catalog(titles: tuple[str, ...]) -> Catalog:
    return Catalog.from_items(
        (
            Item(f"i{row}", title, categories=("even" if row % 2 == 0 else "odd",))
            for row, title in enumerate(titles)
        ),
        "films",
    )


class Table(ScoringTeacher):
    """Scores by the newest item of a history, of a table; it remembers what it was asked."""

    def __init__(self, table: np.ndarray, catalog: Catalog) -> None:
        super().__init__(catalog)
        self.table = torch.from_numpy(np.asarray(table, dtype=np.float64))
        self.asked: list[list[list[int]]] = []

    def score_block(self, histories: Sequence[np.ndarray], left_out: Any = None) -> torch.Tensor:
        self.asked.append([rows.tolist() for rows in histories])
        return self.table[[int(rows[-1]) if len(rows) else 0 for rows in histories]].clone()


@pytest.fixture(scope="module")
def catalog(titles: tuple[str, ...]) -> Catalog:
    return make_catalog(titles)


@pytest.fixture(scope="module")
def sasrec(catalog: Catalog) -> InProcessTeacher:
    return InProcessTeacher(random_network(len(catalog)), catalog)


def random_network(items: int) -> SasRec:
    sizes = SasRecSizes(items, max_length=6, hidden=8, inner=16, layers=1, heads=1, dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SasRec(sizes)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.6)
    return network.eval()


@pytest.fixture(scope="module")
def recommender(tiny_backbone: Backbone, catalog: Catalog) -> Recommender:
    return Recommender(tiny_backbone, ModelSpec(base="tiny"), catalog)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores.astype(np.float64) - scores.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def model_logprobs(recommender: Recommender, prompt: Sequence[int]) -> np.ndarray:
    """The log-probability of each item at a place, as the model says it without any guide."""
    [found] = recommender.beam.top_items([Slot(prompt)], None)
    logprobs = np.full(len(recommender.catalog), -np.inf)
    logprobs[found.rows] = found.logprobs
    return logprobs


@pytest.fixture(scope="module")
def coded(tiny_backbone: Backbone, catalog: Catalog) -> Recommender:
    """A random model that writes codes, of two levels of eight."""
    backbone = add_codes(copy.deepcopy(tiny_backbone), (8, 8))
    rows = np.arange(50, dtype=np.int32)
    codes = SemanticIds(np.stack([rows // 8, rows % 8], axis=1), (8, 8))
    spec = ModelSpec(base="tiny", method="token", item_form="codes", code_sizes=(8, 8))
    return Recommender(backbone, spec, catalog, codes)


@pytest.fixture(scope="module")
def retrieving(tiny_backbone: Backbone, catalog: Catalog) -> Recommender:
    """A random model that retrieves, by vectors of six numbers."""
    vectors = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    head = RetrievalHead.create(32, vectors).eval()
    backbone = replace(copy.deepcopy(tiny_backbone), head=head)
    return Recommender(backbone, ModelSpec(base="tiny", method="ret"), catalog)


methods = pytest.mark.parametrize("method", ["recommender", "coded", "retrieving"])


@methods
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_ranking_is_the_best_of_the_mixed_scores(
    request: pytest.FixtureRequest, method: str, sasrec: InProcessTeacher, share: float
) -> None:
    recommender: Recommender = request.getfixturevalue(method)
    history = [7, 3, 12]
    guided = recommender.with_guide(Guide(sasrec, recommender.catalog, share, 0.0))
    own = model_logprobs(recommender, recommender.slot(history, 10).prompt_ids)
    mixed = (1 - share) * own + share * log_softmax(sasrec.scores([history])[0])
    mixed[history] = -np.inf
    best = np.argsort(-mixed)[:10].tolist()
    found = guided.recommend([f"i{row}" for row in history])
    assert [guided.catalog.row(one.item_id) for one in found] == best
    assert [one.score for one in found] == pytest.approx(np.exp(mixed[best]), rel=1e-4)


@methods
@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_each_item_of_a_list_is_the_best_of_the_mixed_scores(
    request: pytest.FixtureRequest, method: str, sasrec: InProcessTeacher, share: float
) -> None:
    recommender: Recommender = request.getfixturevalue(method)
    history = [7, 3, 12]
    guided = recommender.with_guide(Guide(sasrec, recommender.catalog, 0.0, share))
    excluded = guided.excluded(history=history, exclude_seen=True)
    [weights] = guided.weights([history], [excluded], "list")
    asked = guided.list_request(history, 6, excluded, weights=weights)
    [done] = guided.engine.complete([asked])
    teacher = log_softmax(sasrec.scores([history])[0])
    soi = recommender.backbone.soi_token_id
    opened = [at for at, token in enumerate(done.token_ids) if token == soi]
    named: list[int] = []
    for at in opened:
        own = model_logprobs(recommender, [*asked.prompt_ids, *done.token_ids[:at]])
        mixed = share * teacher if share == 1 else (1 - share) * own + share * teacher
        mixed[[*history, *named]] = -np.inf
        named.append(int(np.argmax(mixed)))
    assert list(done.items) == named
    found = guided.recommend([f"i{row}" for row in history], k=6, decode="list")
    assert [guided.catalog.row(one.item_id) for one in found] == named
    if share == 1:
        assert named == sasrec.top_k([history], 6)[0].tolist()


@pytest.mark.parametrize("decode", ["beam", "list"])
def test_a_guide_that_says_the_same_of_all_items_changes_nothing(
    recommender: Recommender, catalog: Catalog, decode: Any
) -> None:
    teacher = Table(np.zeros((50, 50)), catalog)
    guided = recommender.with_guide(Guide(teacher, catalog, 0.6, 0.6))
    alone = recommender.with_guide(Guide(teacher, catalog, 0.0, 0.0))
    history = ["i4", "i9"]
    expected = recommender.recommend(history, k=7)
    assert alone.recommend(history, k=7) == expected
    assert guided.recommend(history, k=7) == expected
    if decode == "list":
        listed = guided.recommend(history, k=7, decode="list")
        # By whole items, as guided lists are.
        request = recommender.list_request([4, 9], 7, guided.excluded(["i4", "i9"]))
        [done] = guided.engine.complete([replace(request, item_decode="search")])
        assert [guided.catalog.row(one.item_id) for one in listed] == list(done.items)
        assert [one.score for one in listed] == [math.exp(p) for p in done.logprobs]


def test_a_batch_asks_the_teacher_once(recommender: Recommender, catalog: Catalog) -> None:
    table = np.random.default_rng(0).normal(size=(50, 50))
    teacher = Table(table, catalog)
    guided = recommender.with_guide(Guide(teacher, catalog))
    histories = [["i1"], ["i4", "i2"], ["i1"]]
    together = guided.recommend_batch(histories, k=3)
    assert len(teacher.asked) == 1
    assert sorted(teacher.asked[0]) == [[1], [1], [4, 2]]
    assert together[0] == together[2]
    for history, found in zip(histories, together, strict=True):
        alone = guided.recommend(history, k=3)
        assert [one.item_id for one in alone] == [one.item_id for one in found]
    asked = len(teacher.asked)
    guided.recommend(["i1"], k=3, guide_weight=0.0)
    assert len(teacher.asked) == asked


def test_no_history_is_popularity_or_nothing(recommender: Recommender, catalog: Catalog) -> None:
    table = np.zeros((50, 50))
    table[0, 31] = 9.0
    teacher = Table(table, catalog)
    items = recommender.items
    popular = Guide(teacher, catalog, empty="popularity")
    [found] = popular.log_weights([[]], items)
    assert found is not None
    assert found == pytest.approx(log_softmax(table[0]))
    nothing = Guide(teacher, catalog, empty="nothing")
    asked = len(teacher.asked)
    assert nothing.log_weights([[]], items) == [None]
    assert len(teacher.asked) == asked
    none, some = nothing.log_weights([[], [5]], items)
    assert none is None
    assert some is not None
    assert nothing.weights([[]], items, [None], "list", log_factors=[None]) == [None]
    expected = recommender.recommend([], k=5)
    assert recommender.with_guide(nothing).recommend([], k=5) == expected
    assert recommender.with_guide(popular).recommend([], k=1)[0].item_id == "i31"


def test_changed_catalogs_are_matched_by_id(recommender: Recommender, catalog: Catalog) -> None:
    table = np.random.default_rng(1).normal(size=(50, 50))
    guide = Guide(Table(table, catalog), catalog)
    changed = recommender.with_guide(guide).with_changes(
        [Item("new", "Moonlight Ferry (2001)"), Item("i9", "A Winter in Tromsø, Again (1988)")],
        ["i9", "i30"],
    )
    assert changed.guide is guide
    now = changed.catalog
    teacher = log_softmax(table[4])
    history = [now.row("new"), 4]
    [found] = guide.log_weights([history], changed.items)
    assert found is not None
    assert len(found) == len(now)
    for row, item in enumerate(now.items):
        if row in now.vacant:
            continue
        expected = teacher[catalog.row(item.item_id)] if catalog.has(item.item_id) else min(teacher)
        assert found[row] == pytest.approx(expected)
    # The teacher is not told of an item that it does not know.
    assert guide.teacher.asked[-1] == [[4]]  # type: ignore[attr-defined]
    named = changed.recommend(["new", "i4"], k=100, exclude_seen=False)
    assert {one.item_id for one in named} == {item.item_id for item in now.live_items}
    # Items of the same ids and order under another name are the same to it.
    again = Catalog(catalog.items, "other")
    renamed = recommender.with_guide(guide).with_metadata(again)
    assert renamed.guide is guide
    assert guide.log_weights([[4]], renamed.items)[0] == pytest.approx(teacher)


@pytest.mark.parametrize("wrong", [math.nan, -math.inf, math.inf])
def test_scores_that_are_no_numbers_are_refused(
    recommender: Recommender, catalog: Catalog, wrong: float
) -> None:
    table = np.zeros((50, 50))
    table[4, 17] = wrong
    guided = recommender.with_guide(Guide(Table(table, catalog), catalog))
    guided.recommend(["i3"], k=1)
    with np.errstate(all="ignore"), pytest.raises(TeacherError, match=r"guide: .* for item 'i\d+'"):
        guided.recommend(["i3", "i4"], k=1)


def test_answers_of_another_length_are_refused(recommender: Recommender, catalog: Catalog) -> None:
    class Short(Table):
        def scores(self, histories: Any, **how: Any) -> np.ndarray:
            return np.asarray(super().scores(histories, **how)[:, :-1])

        def log_probabilities(self, histories: Any, **how: Any) -> np.ndarray:
            return self.scores(histories)

    guided = recommender.with_guide(Guide(Short(np.zeros((50, 50)), catalog), catalog))
    with pytest.raises(TeacherError, match=r"shape \(1, 49\); expected \(1, 50\)"):
        guided.recommend(["i3"], k=1)


def test_a_teacher_of_another_catalog_is_refused(
    recommender: Recommender, catalog: Catalog, sasrec: InProcessTeacher, titles: tuple[str, ...]
) -> None:
    other = make_catalog((*titles[:-1], "Another"))
    with pytest.raises(TeacherError, match=r"guide: the teacher knows 50 items; .* has 3"):
        Guide(sasrec, make_catalog(titles[:3]))
    foreign = Guide(InProcessTeacher(random_network(50), other), other)
    with pytest.raises(TeacherError, match=r"guide: the teacher was fitted on the catalog 'films'"):
        recommender.with_guide(foreign)
    with pytest.raises(TeacherError, match="give a guide of this catalog, or none"):
        Recommender(recommender.backbone, recommender.spec, catalog, guide=foreign)
    guided = recommender.with_guide(Guide(sasrec, catalog))
    with pytest.raises(TeacherError, match="give a guide of this catalog, or none"):
        guided.with_catalog(other)
    assert guided.with_catalog(other, guide=None).guide is None
    assert guided.with_catalog(other, guide=foreign).guide is foreign
    assert guided.with_catalog(make_catalog(titles)).guide is guided.guide
    for share in (-0.1, 1.5, math.nan):
        with pytest.raises(ConfigError, match="expected a share of the teacher from 0 to 1"):
            Guide(sasrec, catalog, share)
        with pytest.raises(ConfigError, match="expected a share of the teacher from 0 to 1"):
            guided.recommend(["i1"], guide_weight=share)
    with pytest.raises(ConfigError, match="and the model has no guide"):
        recommender.recommend(["i1"], guide_weight=0.5)


@pytest.mark.parametrize("guided", [False, True])
def test_boosts_multiply_the_score(
    recommender: Recommender, sasrec: InProcessTeacher, catalog: Catalog, guided: bool
) -> None:
    share = 0.4 if guided else 0.0
    model = recommender.with_guide(Guide(sasrec, catalog, share, share)) if guided else recommender
    own = model_logprobs(recommender, recommender.slot([4], 50).prompt_ids)
    mixed = (1 - share) * own + share * log_softmax(sasrec.scores([[4]])[0])
    boost = {"i8": 2.5, "i9": 0.01}
    mixed[8] += math.log(2.5)
    mixed[9] += math.log(0.01)
    found = model.recommend(["i4"], k=50, exclude_seen=False, boost=boost)
    assert [catalog.row(one.item_id) for one in found] == np.argsort(-mixed).tolist()
    assert model.recommend(["i4"], k=1, boost={"i9": 1e9})[0].item_id == "i9"
    listed = model.recommend(["i4"], k=3, boost={"i9": 1e9}, decode="list")
    assert listed[0].item_id == "i9"
    with pytest.raises(CatalogError, match="no item with id 'i99'"):
        model.recommend(["i4"], boost={"i99": 2})
    for factor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match=r"boost: found .* for item 'i8'"):
            model.recommend(["i4"], boost={"i8": factor})


def test_boosts_of_the_catalog_are_joined_with_those_of_a_request(
    tiny_backbone: Backbone, catalog: Catalog
) -> None:
    items = [
        replace(item, boost=4.0 if row == 8 else 1.0) for row, item in enumerate(catalog.items)
    ]
    shop = Recommender(tiny_backbone, ModelSpec(base="tiny"), Catalog.from_items(items))
    plain = Recommender(tiny_backbone, ModelSpec(base="tiny"), catalog)

    def order(model: Recommender, **how: Any) -> list[str]:
        return [one.item_id for one in model.recommend(["i4"], k=50, exclude_seen=False, **how)]

    assert order(shop) == order(plain, boost={"i8": 4.0})
    assert order(shop, boost={"i8": 0.25}) == order(plain)
    sale = Item("sale", "Moonlight Ferry (2001)", boost=1e9)
    changed = shop.with_changes([sale])
    assert order(changed)[0] == "sale"
    unboosted = plain.with_changes([replace(sale, boost=1.0)])
    gone = ["sale", "i8"]
    assert order(changed.with_changes(removed=gone)) == order(unboosted.with_changes(removed=gone))


@given(st.integers(0, 2**31), st.floats(0, 1), st.booleans())
def test_weights_are_those_of_all_parts(
    world: tuple[ModelItems, Catalog], seed: int, share: float, bar: bool
) -> None:
    items, catalog = world
    random = np.random.default_rng(seed)
    table = random.normal(size=(len(catalog), len(catalog)))
    guide = Guide(Table(table, catalog), catalog, share, share)
    boost = {f"i{row}": float(random.uniform(0.1, 9)) for row in random.integers(0, 50, size=3)}
    base = ExcludedItems.build(items.grounding.trie, {1, 5}) if bar else None
    [weights] = item_weights(guide, [[6]], items, [base], "list", boost=boost)
    assert weights is not None
    expected = share * log_softmax(table[6].astype(np.float32))
    for item_id, factor in boost.items():
        expected[catalog.row(item_id)] += math.log(factor)
    own = weights.share * weights.log_weights
    assert weights.model == pytest.approx(1 - share)
    for position, row in enumerate(items.grounding.trie.order.tolist()):
        if bar and row in (1, 5):
            assert np.isneginf(own[position])
        else:
            assert own[position] == pytest.approx(expected[row], abs=1e-5)


@pytest.fixture(scope="module")
def world(recommender: Recommender, catalog: Catalog) -> tuple[ModelItems, Catalog]:
    return recommender.items, catalog


@pytest.fixture
def folder(tmp_path: Path, tiny_backbone: Backbone, catalog: Catalog) -> Path:
    """A model."""
    save_model(tmp_path / "model", tiny_backbone, ModelSpec(base="tiny"))
    catalog.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def run(tmp_path: Path, catalog: Catalog) -> Path:
    """A teacher's run folder, with what is no part of the teacher."""
    path = tmp_path / "teacher"
    path.mkdir()
    save_network(path, random_network(50), catalog.fingerprint)
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "big").write_bytes(b"x" * 1000)
    return path


def test_a_guided_folder_is_complete(
    folder: Path, run: Path, catalog: Catalog, recommender: Recommender
) -> None:
    fitted = {"users": 3}
    shares = {"ranking": 0.25, "listing": 0.75}
    assert Recommender.from_pretrained(folder, "cpu").guide is None
    save_guide(folder, str(run), **shares, empty="nothing", fitted=fitted)
    assert not (folder / "guide" / "checkpoints").exists()
    reference = recommender.with_guide(Guide(load_teacher(run, catalog, "cpu"), catalog, **shares))
    shutil.rmtree(run)
    model = Recommender.from_pretrained(folder, "cpu")
    assert model.guide is not None
    assert (model.guide.ranking, model.guide.listing) == (0.25, 0.75)
    assert model.guide.empty == "nothing"
    for decode in ("beam", "list"):
        how: Any = {"k": 5, "decode": decode}
        found, expected = (one.recommend(["i3", "i8"], **how) for one in (model, reference))
        assert [one.item_id for one in found] == [one.item_id for one in expected]
    assert Recommender.from_pretrained(folder, "cpu", guide=None).guide is None
    other = Recommender.from_pretrained(folder, "cpu", guide_weight=0.5).guide
    assert other is not None
    assert (other.ranking, other.listing, other.empty) == (0.5, 0.5, "nothing")
    written = json.loads((folder / "guide.json").read_text())
    assert (written["ranking"], written["list"]) == (0.25, 0.75)
    assert (written["fitted"], written["teacher"]) == (fitted, "guide")
    assert set(own_guide_files(folder)) == {
        "guide.json",
        "guide/teacher.json",
        f"guide/{WEIGHTS_FILE}",
    }


def test_a_teacher_is_named_in_place_of_the_own_guide(
    folder: Path, run: Path, catalog: Catalog
) -> None:
    guide = Recommender.from_pretrained(folder, "cpu", guide=run).guide
    assert guide is not None
    assert (guide.ranking, guide.listing) == (0.7, 0.7)
    untrained = GuideChoice(str(run), trained=False).load(folder, catalog, "cpu")
    assert untrained is not None
    assert (untrained.ranking, untrained.listing) == (1.0, 1.0)
    lighter = GuideChoice(str(run), 0.2, "nothing").load(folder, catalog, "cpu")
    assert lighter is not None
    assert (lighter.ranking, lighter.listing, lighter.empty) == (0.2, 0.2, "nothing")
    assert GuideChoice("off").load(folder, catalog) is None
    assert GuideChoice().load(folder, catalog) is None
    for choice, message in (
        (GuideChoice("off", 0.5), "--guide-weight 0.5: the guide is off"),
        (GuideChoice("own", 0.5), "--guide-weight 0.5: the guide is lacking"),
        (GuideChoice("nowhere"), "--guide nowhere: no such folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            choice.load(folder, catalog)
    with pytest.raises(TeacherError, match="was fitted on another catalog"):
        GuideChoice(str(run)).load(folder, make_catalog(("A", "B")), "cpu")


def test_a_guide_that_is_not_as_it_was_written_is_refused(folder: Path, run: Path) -> None:
    save_guide(folder, str(run), ranking=0.5, listing=0.5, empty="popularity", fitted={})
    weights = folder / "guide" / WEIGHTS_FILE
    before = weights.read_bytes()
    for damage in (lambda: weights.write_bytes(before[:-1] + b"?"), weights.unlink):
        damage()
        with pytest.raises(ArtifactError, match=rf"{WEIGHTS_FILE}: is not the file"):
            Recommender.from_pretrained(folder, "cpu")
        weights.write_bytes(before)
    stray = folder / "guide" / "stray"
    stray.write_text("")
    with pytest.raises(ArtifactError, match="stray: is not the file"):
        Recommender.from_pretrained(folder, "cpu")
    stray.unlink()
    written = (folder / "guide.json").read_text()
    for field, value in (
        ("ranking", 1.5),
        ("list", True),
        ("list", None),
        ("empty", "all"),
        ("teacher", "../elsewhere"),
        ("files", []),
    ):
        (folder / "guide.json").write_text(json.dumps(json.loads(written) | {field: value}))
        with pytest.raises(ArtifactError, match=rf"guide\.json: {field}: found"):
            Recommender.from_pretrained(folder, "cpu")
    (folder / "guide.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"guide\.json.*incatalog guide fit"):
        Recommender.from_pretrained(folder, "cpu")
    (folder / "guide.json").write_text(written)
    shutil.rmtree(folder / "guide")
    with pytest.raises(ArtifactError, match=r"guide: is gone"):
        Recommender.from_pretrained(folder, "cpu")
    assert Recommender.from_pretrained(folder, "cpu", guide=None).guide is None


def test_the_command_takes_a_guide(
    folder: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def named(**flags: Any) -> list[str]:
        how: Any = {"k": 4, "decode": "list", "format": "json", "device": "cpu", **flags}
        recommend(RecommendSettings(folder, history=("i3", "i8"), **how))
        return [one["item_id"] for one in json.loads(capsys.readouterr().out)]

    catalog = Catalog.load(folder)
    best = load_teacher(run, catalog, "cpu").top_k([[3, 8]], 4)[0].tolist()
    taught = [f"i{row}" for row in best]
    alone = named()
    assert named(guide=str(run), guide_weight=1.0) == taught
    assert named(guide=str(run), guide_weight=0.0) == alone
    save_guide(folder, str(run), ranking=0.0, listing=1.0, empty="nothing", fitted={})
    assert named() == taught
    assert named(guide="off") == alone


def test_a_guide_joins_no_catalog_that_has_changed(
    recommender: Recommender, sasrec: InProcessTeacher, catalog: Catalog
) -> None:
    changed = recommender.with_changes(removed=["i9"])
    with pytest.raises(TeacherError, match="give a guide of this catalog, or none"):
        changed.with_guide(Guide(sasrec, catalog))


def test_a_chat_is_guided_by_a_history(
    recommender: Recommender, sasrec: InProcessTeacher, catalog: Catalog
) -> None:
    """Its weights are those of the history, whatever the conversation names."""
    guided = recommender.with_guide(Guide(sasrec, catalog, 0.6, 0.6))
    said = [{"role": "user", "content": f"Not {catalog.titles[20]}"}]
    how: Any = {"history": ["i7", "i3"], "max_new_tokens": 80, "guide_weight": 0.9}
    request = guided._turn(said, ["i7", "i3"], 0.9, {}, exclude=(), categories=(), boost=None)
    excluded = guided.excluded(history=[7, 3], exclude_seen=True)
    [weights] = guided.weights([[7, 3]], [excluded], "list", guide_weight=0.9)
    assert request.weights is not None
    assert weights is not None
    assert np.array_equal(request.weights.log_weights, weights.log_weights)
    assert request.prompt_ids == guided.chat_request(said, history=[7, 3]).prompt_ids
    pieces = list(guided.stream(said, **how))
    assert "".join(p if isinstance(p, str) else p.title for p in pieces) == (
        guided.chat(said, **how).text
    )
    # Without one it is what the conversation names, and nothing where the guide does not count.
    request = guided._turn(said, [], None, {}, exclude=(), categories=(), boost=None)
    assert request.excluded is not None
    assert request.excluded.rows.nonzero()[0].tolist() == [20]
    request = guided._turn(said, [], 0.0, {}, exclude=(), categories=(), boost=None)
    assert request.excluded is not None
    assert not request.excluded.rows.any()
    assert request.weights is None


def test_the_own_guide_of_another_catalog_says_how_to_go_on(
    folder: Path, run: Path, titles: tuple[str, ...]
) -> None:
    save_guide(folder, str(run), ranking=0.5, listing=0.5, empty="nothing", fitted={})
    with pytest.raises(TeacherError, match=r"guide\.json: .*another catalog.*--guide off"):
        GuideChoice().load(folder, make_catalog(titles[:9]), "cpu")


def test_a_new_item_has_the_mean_of_those_that_are_like_it(catalog: Catalog) -> None:
    known = catalog.items[0]
    alike = {row for row, item in enumerate(catalog.items) if "Clockmaker" in item.title}
    assert len(alike) == 3
    table = np.random.default_rng(1).normal(size=(50, 50))
    guide = Guide(Table(table, catalog), catalog)
    new = [
        Item("new", "Clockmaker", categories=("nothing of it",)),
        Item("odd", "Zzyzx"),
        Item("twin", known.title, categories=known.categories),
    ]
    grown, rows = catalog.with_changes(new)
    items = fake_items(grown)
    [found] = guide.log_weights([[4]], items)
    assert found is not None
    line = log_softmax(table[4])
    assert found[:50] == pytest.approx(line)
    likely = np.exp(line[sorted(alike)])
    assert likely.min() <= np.exp(found[rows[0]]) <= likely.max()
    # Nothing in common with anything: as before, nothing speaks for it.
    assert found[rows[1]] == found[:50].min()
    nearest = guide._neighbours.shares([new[2]]).toarray()[0]
    assert nearest.argmax() == 0
    assert nearest.sum() == pytest.approx(1)
    assert np.exp(found[rows[2]]) == pytest.approx(nearest @ np.exp(line))


def fake_items(catalog: Catalog) -> Any:
    """What a guide looks at of the items of a model."""

    class Items:
        pass

    items: Any = Items()
    items.catalog, items.grounding = catalog, Items()
    return items


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_likeness_is_the_cosine_of_words(seed: int, words: int) -> None:
    random = np.random.default_rng(seed)

    def item(row: int) -> Item:
        own = random.choice(list("abcdefgh"), size=random.integers(1, words + 1))
        return Item(f"{seed}-{row}", " ".join(letter * 3 for letter in own))

    known = Catalog.from_items(map(item, range(9)))
    likeness = Neighbours.of(known)
    asked = [item(row) for row in range(9, 12)]
    shares = likeness.shares(asked).toarray()
    for line, one in zip(shares, asked, strict=True):
        own = likeness.vectorizer.transform([one]).toarray()[0]
        cosines = likeness.known.toarray() @ own
        best = sorted(cosines, reverse=True)[:NEAREST]
        assert sorted(line[line > 0] * sum(best), reverse=True) == pytest.approx(
            [value for value in best if value > 0]
        )
        common = [set(one.title.split()) & set(other.title.split()) for other in known.items]
        assert all(bool(words) or not share for words, share in zip(common, line, strict=True))
