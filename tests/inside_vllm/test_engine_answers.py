"""Real engines of vLLM: what they answer is what the engine of this package does, or an error."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from incatalog.model.backbone import create_tiny
from incatalog.model.saved import save_backbone
from incatalog.model.tiny import TinyConfig
from incatalog.recommender.recommender import Recommender
from incatalog.training.settings import SftSettings
from incatalog.training.sft import train_sft

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

Jobs = list[dict[str, Any]]
Answer = Callable[..., Jobs]
K = 10
PROCESSOR = "incatalog.vllm.runners:ItemProcessor"
FORCED = {
    "method": "custom_class",
    "model": "incatalog.vllm.proposer.ForcedRuns",
    "num_speculative_tokens": 16,
}
NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
USERS = 64
FEW = 8


@dataclass(frozen=True)
class Asked:
    """Requests to a model, and what the engine of this package answers."""

    folder: Path
    recommender: Recommender
    plain: list[dict[str, Any]]
    plain_tokens: list[list[int]]
    guided: list[dict[str, Any]]
    guided_tokens: list[list[int]]
    passes: int


def asked(folder: Path, histories: list[list[str]], **guide: Any) -> Asked:
    recommender = Recommender.from_pretrained(folder, "cpu", **guide)
    k = min(K, recommender.spec.list_length)
    rows = [recommender.catalog.rows(history).tolist() for history in histories]
    barred = [recommender.excluded((), (), row, True) for row in rows]
    requests: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    tokens: dict[bool, list[list[int]]] = {}
    passes = 0
    for guided in (False, True):
        weights = recommender.weights(rows, barred, "list") if guided else [None] * len(rows)
        lists = [
            recommender.list_request(row, k, without, weights=weight, item_decode="token")
            for row, without, weight in zip(rows, barred, weights, strict=True)
        ]
        before = recommender.engine.statistics.forward_passes
        done = recommender.engine.complete(lists)
        passes = passes or recommender.engine.statistics.forward_passes - before
        tokens[guided] = [list(map(int, one.token_ids)) for one in done]
        guide = recommender.guide
        said = [None] * len(rows)
        if guided:
            assert guide is not None
            said = guide.log_weights(rows, recommender.items)  # type: ignore[assignment]
        for number, (request, history) in enumerate(zip(lists, histories, strict=True)):
            items: dict[str, Any] = {"k": k, "exclude": sorted(set(history))}
            if guided:
                assert guide is not None
                log_weights = said[number].tolist()  # type: ignore[attr-defined]
                items["weights"] = {"share": guide.share("list"), "log_weights": log_weights}
            requests[guided].append(
                {
                    "prompt": list(map(int, request.prompt_ids)),
                    "sampling": {"temperature": 0, "max_tokens": request.max_new_tokens + 1},
                    "items": items,
                }
            )
    return Asked(
        folder, recommender, requests[False], tokens[False], requests[True], tokens[True], passes
    )


def read_lists(data: Path) -> list[list[str]]:
    """The histories of all users of prepared data."""
    lists: dict[str, list[str]] = json.loads((data / "sequential.jsonl").read_text("utf-8"))
    return list(lists.values())


@pytest.fixture(scope="session")
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Asked]:
    """A guided cgen and a guided token model: those of a study, or small ones trained here."""
    repository = Path(__file__).resolve().parents[2]
    study = Path(os.environ.get("INCATALOG_STUDY", repository / "runs" / "study"))
    if all((study / name / "incatalog.json").exists() for name in ("cgen", "token")):
        known = read_lists(study / "data")
        histories = [history[:-1] for history in known[:USERS]]
        return {name: asked(study / name, histories) for name in ("cgen", "token")}
    folder = tmp_path_factory.mktemp("models")
    teacher, data = (request.getfixturevalue(name) for name in ("teacher", "data"))
    # Of a width that vLLM knows on a CPU.
    sizes = TinyConfig(vocab_size=512, hidden=64, inner=64, layers=2, heads=2, seed=0)
    save_backbone(folder / "tiny", create_tiny(request.getfixturevalue("titles"), sizes))
    base = SftSettings(
        model=str(folder / "tiny"), data=data, out=folder / "cgen",
        teacher=str(teacher), tune="full", history_form="span", list_length=K, max_history=4,
        epochs=1, batch_size=4, max_steps=60, learning_rate=1e-2, validate_every=0, device="cpu",
    )  # fmt: skip
    train_sft(base)
    index = request.getfixturevalue("index")
    train_sft(replace(base, out=folder / "token", method="token", index=index))
    some = read_lists(data)
    histories = [some[user % len(some)][: -1 - user // len(some)] for user in range(USERS)]
    guide: Any = {"guide": teacher, "guide_weight": 0.6}
    return {name: asked(folder / name, histories, **guide) for name in ("cgen", "token")}


def engine(**changes: Any) -> dict[str, Any]:
    return {"max_model_len": 1024, "max_num_seqs": 128} | changes


def through(way: str) -> dict[str, Any]:
    return {"additional_config": {"incatalog": {"through": way}}}


def upto(tokens: list[int], expected: list[int]) -> list[int]:
    """An answer without the token that ended it."""
    return tokens[: len(expected)] if len(tokens) == len(expected) + 1 else tokens


def same(found: dict[str, Any], expected: list[list[int]]) -> int:
    assert found.get("error") is None, found
    assert set(found["ends"]) == {"stop"}
    pairs = zip(found["tokens"], expected, strict=True)
    return sum(upto(tokens, wanted) == wanted for tokens, wanted in pairs)


@pytest.fixture(scope="session")
def told(
    models: dict[str, Asked], answer: Answer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What engines of both models and all kinds answered; one process, as vLLM starts slowly."""
    jobs: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        whole = [{"requests": model.plain}, {"requests": model.guided}]
        folder = str(model.folder)
        jobs[f"{name}, processor"] = {
            "model": folder,
            "engine": engine(),
            "batches": [*whole, *refused(model), {"requests": free_text(model)}],
        }
        forced = {"model": folder, "engine": engine(speculative_config=FORCED), "batches": whole}
        jobs[f"{name}, grammar with proposer"] = forced
    model = models["cgen"]
    few = [{"requests": model.plain[:FEW]}]
    weighed = [{"requests": model.guided[:FEW]}]
    cells: dict[str, dict[str, Any]] = {
        "processor, named": {"logits_processors": [PROCESSOR]},
        "processor, named, speculation": {
            "logits_processors": [PROCESSOR],
            "speculative_config": NGRAM,
        },
        "processor, speculation": {"speculative_config": NGRAM, **through("processor")},
        "entry point, speculation": {"speculative_config": NGRAM},
        "entry point": {},
        "grammar": through("grammar"),
        "grammar, speculation": {"speculative_config": NGRAM, **through("grammar")},
        "grammar with proposer": {"speculative_config": FORCED, **through("grammar")},
    }
    caches: dict[str, dict[str, Any]] = {
        "cache": {"enable_prefix_caching": True},
        "chunks": {"enable_prefix_caching": False, "max_num_batched_tokens": 48,
                   "max_num_seqs": 16},
    }  # fmt: skip
    for cell, how in cells.items():
        for cache, with_it in caches.items():
            # The same requests again, so that a cache has something to give.
            jobs[f"cell {cell}, {cache}"] = {
                "model": str(model.folder),
                "engine": engine(**how, **with_it),
                "batches": [*few, *few, *weighed],
            }
    for name, model in models.items():
        sampled = [
            {**one, "sampling": one["sampling"] | {"temperature": 1.0, "n": 16}}
            for one in model.plain
        ]
        batches = [{"requests": sampled}]
        folder = str(model.folder)
        jobs[f"{name}, samples"] = {"model": folder, "engine": engine(), "batches": batches}
    lost = tmp_path_factory.mktemp("lost")
    for path in models["cgen"].folder.iterdir():
        if path.is_file() and path.name != "incatalog.json":
            shutil.copy(path, lost)
    jobs["lost"] = {"model": str(lost), "engine": engine(), "batches": []}
    jobs["blind"] = {
        "model": str(models["cgen"].folder), "engine": engine(), "blind": True,
        "batches": [{"requests": [
            {**one, "sampling": one["sampling"] | {"temperature": 2.0}}
            for one in models["cgen"].plain[:FEW]
        ]}],
    }  # fmt: skip
    return dict(zip(jobs, answer(list(jobs.values())), strict=True))


def free_text(model: Asked) -> list[dict[str, Any]]:
    """Requests without a word about items, and some for two at most."""
    # On a CPU vLLM knows no seeds of requests, only that of the engine.
    sampling = {"temperature": 1.0, "max_tokens": 120}
    some = [{**one, "sampling": sampling, "items": None} for one in model.plain[:FEW]]
    return [*some, *({**one, "items": {"max_items": 2}} for one in some)]


def refused(model: Asked) -> list[dict[str, Any]]:
    """Batches each of which is an error."""
    first = model.plain[0]

    def changed(items: Any = None, **sampling: Any) -> dict[str, Any]:
        asked_items = {"k": 3} if items is None else items
        sampled = first["sampling"] | sampling
        return {"requests": [{**first, "sampling": sampled, "items": asked_items}]}

    soi = model.recommender.backbone.soi_token_id
    return [
        changed({"k": 0}),
        changed({"exclude": ["no such item"]}),
        changed({"domain": "elsewhere"}),
        changed({"catalog_version": "another"}),
        changed({"exclude": [item.item_id for item in model.recommender.catalog.live_items]}),
        changed(logit_bias={5: 1.0}),
        changed(ignore_eos=True),
        {"requests": [{**first, "prompt": [*first["prompt"], soi, 7]}]},
        {"requests": [first], "beams": 2},
    ]


WORDS = (
    "k: found 0; expected a whole number of at least 1",
    "no such item",
    "domain: found 'elsewhere'; expected",
    "catalog_version: found 'another'; the catalog",
    "no item left to recommend",
    "logit_bias: found",
    "ignore_eos: found True",
    "opens an item span that nothing closes",
    "use_beam_search: found a beam search",
)


@pytest.mark.parametrize("name", ["cgen", "token"])
def test_greedy_answers_are_those_of_our_engine(
    name: str, told: dict[str, Any], models: dict[str, Asked]
) -> None:
    plain, guided = told[f"{name}, processor"]["batches"][:2]
    assert same(plain, models[name].plain_tokens) == USERS
    assert same(guided, models[name].guided_tokens) == USERS


@pytest.mark.parametrize("name", ["cgen", "token"])
def test_drafts_of_what_is_forced_save_passes(
    name: str, told: dict[str, Any], models: dict[str, Asked]
) -> None:
    alone = told[f"{name}, processor"]["batches"][0]
    drafted, guided = told[f"{name}, grammar with proposer"]["batches"]
    assert same(drafted, models[name].plain_tokens) == USERS
    assert same(guided, models[name].guided_tokens) == USERS
    for batch in (drafted, guided):
        assert batch["passes"] <= 40
        assert batch["passes"] < alone["passes"]


@pytest.mark.parametrize("name", ["cgen", "token"])
def test_samples_name_only_what_may_be_named(
    name: str, told: dict[str, Any], models: dict[str, Asked]
) -> None:
    model = models[name]
    [found] = told[f"{name}, samples"]["batches"]
    assert found.get("error") is None, found
    soi, eoi = (getattr(model.recommender.backbone, f"{one}_token_id") for one in ("soi", "eoi"))
    catalog = model.recommender.catalog
    spans = {tuple(model.recommender.item_tokens.span(row)): row for row in range(len(catalog))}
    count = 0
    for number, tokens in enumerate(found["tokens"]):
        request = model.plain[number // 16]
        gone = set(catalog.rows(request["items"]["exclude"]).tolist())
        starts = [place for place, token in enumerate(tokens) if token == soi]
        assert len(starts) == request["items"]["k"] == tokens.count(eoi)
        for start in starts:
            row = spans[tuple(tokens[start : tokens.index(eoi, start) + 1])]
            assert row not in gone
            gone.add(row)
            count += 1
    assert count >= 10_000 or model.folder.name == "token" or count < USERS * 16 * K


@pytest.mark.parametrize("name", ["cgen", "token"])
def test_free_text_names_items_alone(
    name: str, told: dict[str, Any], models: dict[str, Asked]
) -> None:
    model = models[name]
    found = told[f"{name}, processor"]["batches"][-1]
    assert found.get("error") is None, found
    backbone, count = model.recommender.backbone, len(model.recommender.catalog)
    spans = {tuple(model.recommender.item_tokens.span(row)) for row in range(count)}
    named = []
    for tokens in found["tokens"]:
        own, place = [], 0
        while backbone.soi_token_id in tokens[place:]:
            start = tokens.index(backbone.soi_token_id, place)
            if backbone.eoi_token_id not in tokens[start:]:
                break
            place = tokens.index(backbone.eoi_token_id, start) + 1
            own.append(tuple(tokens[start:place]))
        assert spans.issuperset(own)
        assert len(set(own)) == len(own)
        named.append(len(own))
    assert sum(named) > 0
    assert max(named[FEW:]) <= 2


@pytest.mark.parametrize("name", ["cgen", "token"])
def test_what_cannot_be_held_is_refused(name: str, told: dict[str, Any]) -> None:
    batches = told[f"{name}, processor"]["batches"][2:-1]
    for words, batch in zip(WORDS, batches, strict=True):
        assert words in batch.get("error", ""), batch


def test_every_cell_is_exact_or_an_error(told: dict[str, Any], models: dict[str, Asked]) -> None:
    expected = models["cgen"].plain_tokens[:FEW]
    exact, errors = [], {}
    for cell, found in told.items():
        if not cell.startswith("cell "):
            continue
        if "start_error" in found:
            errors[cell] = found["start_error"]
            continue
        *plain, guided = found["batches"]
        for batch in plain:
            assert same(batch, expected) == FEW, cell
        # Drafts of another proposer may hold decisions, which nothing would weigh.
        if "grammar, speculation" in cell or "entry point, speculation" in cell:
            assert "weights, and this engine masks scores" in guided["error"], cell
        else:
            assert same(guided, models["cgen"].guided_tokens[:FEW]) == FEW, cell
        exact.append(cell)
    assert len(exact) == 12
    assert len(errors) == 4
    for cell, error in errors.items():
        assert cell.startswith(("cell processor, named, spec", "cell processor, spec")), cell
        assert "leaves" in error, error


def test_a_folder_without_its_description_is_refused(told: dict[str, Any]) -> None:
    error = told["lost"]["start_error"]
    assert "its vocabulary has <SOI> and <EOI>" in error
    assert "holds no incatalog.json" in error


def test_a_plugin_left_out_is_an_error(models: dict[str, Asked], answer: Answer) -> None:
    model = models["cgen"]
    batches = [{"requests": [{**model.plain[0], "items": None}]}]
    # A process each: the plugin is also what lets an engine start once numba is loaded.
    for how in (engine(), engine(speculative_config=NGRAM)):
        job = {"model": str(model.folder), "engine": how, "batches": batches}
        [found] = answer([job], VLLM_PLUGINS="other")
        [batch] = found["batches"]
        assert "VLLM_PLUGINS: leaves incatalog out" in batch["error"]


def test_what_nothing_masked_is_an_error(told: dict[str, Any], models: dict[str, Asked]) -> None:
    [found] = told["blind"]["batches"]
    assert set(found["ends"]) == {"error"}
    # What went out before was allowed: the beginning of a list.
    for tokens, expected in zip(found["tokens"], models["cgen"].plain_tokens, strict=False):
        assert len(tokens) < len(expected)
