from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from damage import edit_json
from incatalog.data.catalog import Catalog
from incatalog.errors import BackboneError, CatalogError, ConfigError, NoItemLeftError
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.recommender.recommender import Recommender
from incatalog.vllm.answer_grammars import AnswerGrammars
from incatalog.vllm.engine_plan import PROCESSOR, PROPOSER, plan_of
from incatalog.vllm.item_request import ItemRequest


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, catalog: Catalog
) -> Path:
    place = tmp_path_factory.mktemp("model")
    catalog.save(place)
    save_model(place, tiny_backbone, ModelSpec(base="tiny", list_length=3))
    return place


@pytest.fixture(scope="module")
def grammars(folder: Path) -> AnswerGrammars:
    return AnswerGrammars.load(folder, domain="films")


def test_grammars_are_those_of_the_recommender(folder: Path, grammars: AnswerGrammars) -> None:
    recommender = Recommender.from_pretrained(folder, "cpu")
    assert grammars.items.grounding.trie.fingerprint == recommender.grounding.trie.fingerprint
    assert grammars.control.stop == recommender.prompts.stop_token_ids
    request = recommender.list_request([0, 1], 3)
    assert request.scaffold is not None
    grammar = grammars.grammar(ItemRequest(k=3))
    wanted = [*request.scaffold.before_item[0], recommender.backbone.soi_token_id]
    assert grammar.forced(len(wanted)) == wanted


def test_a_list_says_what_it_may(grammars: AnswerGrammars) -> None:
    catalog, control = grammars.items.catalog, grammars.control
    some = [item.item_id for item in catalog.live_items][:-2]
    grammar = grammars.grammar(ItemRequest.parse({"k": 9, "exclude": some}))
    tokens = []
    while not grammar.ended:
        token = int(grammar.allowed()[0])
        assert not grammar.accept(token)
        tokens.append(token)
    # Two items are left, and then it ends.
    assert sorted(grammar.items) == [len(catalog) - 2, len(catalog) - 1]
    assert tokens.count(control.soi) == tokens.count(control.eoi) == 2
    assert tokens[-1] in control.stop


def test_weights_choose_among_what_is_left(grammars: AnswerGrammars) -> None:
    count = len(grammars.items.catalog)
    log_weights: list[float | None] = [None] * count
    log_weights[4] = log_weights[5] = -1.0
    asked = {"k": 3, "weights": {"share": 1.0, "log_weights": log_weights, "boost": {"i4": 2.0}}}
    request = ItemRequest.parse(asked)
    assert grammars.weighs(request)
    assert grammars.model_share(request) == 0.0
    grammar = grammars.grammar(request)
    while not grammar.ended:
        assert not grammar.accept(int(grammar.allowed()[0]))
    assert sorted(grammar.items) == [4, 5]


def test_other_versions_are_those_that_were_kept(folder: Path, tmp_path: Path) -> None:
    own = AnswerGrammars.load(folder, domain="films", kept=tmp_path)
    changed = own.items.grounding.trie.without_items([0])
    (tmp_path / "films").mkdir()
    changed.save(tmp_path / "films" / "7")
    count = changed.num_items
    last = ItemRequest.parse({"k": 2, "catalog_version": "7", "excluded_rows": [*range(2, count)]})
    grammar = own.grammar(last)
    while not grammar.ended:
        assert not grammar.accept(int(grammar.allowed()[0]))
    assert grammar.items == (1,)
    with pytest.raises(ConfigError, match=r"exclude: found .*; expected excluded_rows"):
        own.grammar(ItemRequest(k=1, catalog_version="7", exclude=("i3",)))
    for version in ("8", "..", "../films", "films/7"):
        with pytest.raises(CatalogError, match="catalog_version: found"):
            own.grammar(ItemRequest(k=1, catalog_version=version))
    with pytest.raises(CatalogError, match="domain: found 'x'; expected 'films'"):
        own.grammar(ItemRequest(k=1, domain="x"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{k: 3}", "expected the JSON text of an object"),
        ("3", "found 3; expected an object with some of"),
        ('{"k": 0}', "k: found 0"),
        ([], "expected an object with some of catalog_version"),
        ({"n": 3}, "n: found 3; expected one of"),
        ({"k": 0}, "k: found 0; expected a whole number of at least 1"),
        ({"k": True}, "k: found True"),
        ({"k": 3, "max_items": 2}, "max_items: found 2; expected none beside k"),
        ({"exclude": "i1"}, "exclude: found 'i1'; expected a list of item ids"),
        ({"excluded_rows": [-1]}, "excluded_rows: found -1; expected rows from 0 to 49"),
        ({"where": {"price": {}}}, "where: price"),
        ({"weights": {"share": 2}}, "weights: share: found 2; expected a number from 0 to 1"),
        ({"weights": {"share": 0.5}}, "expected log_weights beside it"),
        ({"weights": {"log_weights": [1.0]}}, "log_weights: found '1 numbers'; expected 50"),
        ({"weights": {"log_weights": ["a"]}}, "log_weights: found 'a'; expected numbers"),
        ({"weights": {"boost": {"i1": 0}}}, "boost: found 0 for item 'i1'"),
        ({"exclude": ["nobody"]}, "no item with id 'nobody'"),
        ({"catalog_version": "x"}, "catalog_version: found 'x'"),
    ],
)
def test_what_cannot_be_asked_is_named(given: Any, message: str, grammars: AnswerGrammars) -> None:
    with pytest.raises((ConfigError, CatalogError)) as caught:
        grammars.grammar(ItemRequest.parse(given))
    assert message in str(caught.value)


def test_nothing_left_is_named(grammars: AnswerGrammars) -> None:
    everything = tuple(range(len(grammars.items.catalog)))
    with pytest.raises(NoItemLeftError):
        grammars.grammar(ItemRequest(k=1, excluded_rows=everything))
    grammars.grammar(ItemRequest(max_items=0, excluded_rows=everything))


def test_folders_that_vllm_cannot_serve_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"holds no incatalog\.json"):
        AnswerGrammars.load(tmp_path)
    copy = tmp_path / "model"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BackboneError, match="is an adapter; expected a whole model"):
        AnswerGrammars.load(copy)
    edit_json(copy / "incatalog.json", lambda spec: spec.update(method="ret"))
    with pytest.raises(BackboneError, match="finds items by their vectors, which vLLM cannot"):
        AnswerGrammars.load(copy)


def configured(folder: Path, **changes: Any) -> Any:
    """What an engine of vLLM says of itself, as far as a plan looks at it."""
    model = {
        "model": str(folder), "tokenizer": str(folder), "skip_tokenizer_init": False,
        "runner_type": "generate", "logits_processors": None,
    }  # fmt: skip
    model |= {name: changes.pop(name) for name in list(changes) if name in model}
    known = {
        "additional_config": {}, "speculative_config": None, "use_v2_model_runner": False,
        "kv_transfer_config": None, "num_speculative_tokens": 0,
        "scheduler_config": SimpleNamespace(scheduler_cls=changes.pop("scheduler_cls", None)),
        "structured_outputs_config": SimpleNamespace(
            reasoning_parser=changes.pop("reasoning_parser", "")
        ),
    }  # fmt: skip
    return SimpleNamespace(model_config=SimpleNamespace(**model), **(known | changes))


NGRAM, FORCED = SimpleNamespace(model="ngram"), SimpleNamespace(model=PROPOSER)
GRAMMAR = {"incatalog": {"through": "grammar"}}


@pytest.mark.parametrize(
    ("changes", "through", "weighs", "proposes"),
    [
        ({}, "processor", True, False),
        ({"use_v2_model_runner": True}, "processor", False, False),
        ({"additional_config": GRAMMAR}, "grammar", True, False),
        ({"speculative_config": NGRAM}, "grammar", False, False),
        ({"speculative_config": FORCED}, "grammar", True, True),
    ],
)
def test_an_engine_has_a_plan(
    changes: Any, through: str, weighs: bool, proposes: bool, folder: Path
) -> None:
    plan = plan_of(configured(folder, **changes))
    assert plan is not None
    assert (plan.through, plan.weighs, plan.proposes) == (through, weighs, proposes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"speculative_config": NGRAM, "additional_config": {"incatalog": {
                "through": "processor"}}},
            "through: found processor beside a speculative_config",
        ),
        (
            {"speculative_config": NGRAM, "logits_processors": [PROCESSOR]},
            "logits_processors: found",
        ),
        (
            {"speculative_config": FORCED, "use_v2_model_runner": True},
            "VLLM_USE_V2_MODEL_RUNNER: found 1",
        ),
        ({"skip_tokenizer_init": True}, "skip_tokenizer_init: found true"),
        ({"tokenizer": "elsewhere"}, "tokenizer: found elsewhere"),
        ({"scheduler_cls": "mine"}, "scheduler_cls: found mine"),
        ({"kv_transfer_config": object()}, "kv_transfer_config: found one"),
        (
            {"reasoning_parser": "thinks", "additional_config": GRAMMAR},
            "reasoning_parser: found thinks",
        ),
        ({"additional_config": {"incatalog": {"through": "x"}}}, "through: found 'x'"),
        ({"additional_config": {"incatalog": {"thruogh": "x"}}}, "found thruogh='x'"),
        ({"additional_config": {"incatalog": 3}}, "found 3; expected an object"),
    ],
)  # fmt: skip
def test_engines_that_would_drop_the_constraint_are_refused(
    changes: Any, message: str, folder: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(configured(folder, **changes))
    assert message in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_folder_that_lost_its_description_is_refused(tmp_path: Path) -> None:
    asked = configured(tmp_path, additional_config=GRAMMAR)
    with pytest.raises(BackboneError, match=r"the folder holds no incatalog\.json"):
        plan_of(asked)


def test_weights_travel_as_json(grammars: AnswerGrammars) -> None:
    numbers = np.random.default_rng(0).normal(size=len(grammars.items.catalog))
    told = json.dumps({"weights": {"share": 0.3, "log_weights": numbers.tolist()}})
    weights = ItemRequest.parse(json.loads(told)).weights
    assert weights is not None
    assert weights.log_weights is not None
    assert (weights.log_weights == numbers).all()
