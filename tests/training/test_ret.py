from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from incatalog import Catalog, Item, Recommender
from incatalog.artifacts import read_json
from incatalog.config import Projection
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.vector_blocks import TeacherBlock, VectorBlocks
from incatalog.data.vectors import load_vectors, save_vectors
from incatalog.dialogue.render import ItemRef, Message, Renderer, Text
from incatalog.errors import BackboneError, ConfigError, NoItemLeftError, VectorError
from incatalog.evaluation.reader import AnswerReader
from incatalog.items.tokens import ItemTokens
from incatalog.model.backbone import Backbone
from incatalog.model.head import HEAD_FILE, RetrievalHead
from incatalog.model.saved import load_model
from incatalog.model.spec import load_spec
from incatalog.training.collator import Collator
from incatalog.training.merge import merge_run
from incatalog.training.retrieval_loss import Retrieval
from incatalog.training.samples import Sample
from incatalog.training.settings import MergeSettings, SftSettings
from incatalog.training.sft import check_config, train_sft
from incatalog.training.trainer import plain_forward, scoped_forward
from incatalog.training.validation import ranking_validation, validation_prompts

Settings = Callable[..., SftSettings]
DIM = 12


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "films.emb-words-t.npy"
    random = np.random.default_rng(3)
    save_vectors(path, random.standard_normal((len(titles), DIM)).astype(np.float32))
    return path


@pytest.fixture
def settings(
    tmp_path: Path, data: Path, teacher: Path, tiny_folder: Path, vectors: Path
) -> Settings:
    """Settings of a training of seconds, to be changed by keyword."""
    base = SftSettings(
        model=str(tiny_folder), data=data, out=tmp_path / "run", teacher=str(teacher),
        method="ret", vectors=str(vectors), tune="full", history_form="span", list_length=3,
        max_history=4, epochs=1, batch_size=4, max_steps=4, learning_rate=1e-2, validate_every=0,
        logging_steps=1, device="cpu",
    )  # fmt: skip

    def change(**changes: Any) -> SftSettings:
        return replace(base, **changes)

    return change


def head_of(folder: Path) -> dict[str, torch.Tensor]:
    return RetrievalHead.load(folder).state_dict()


def assert_same_head(first: Path, second: Path) -> None:
    one, other = head_of(first), head_of(second)
    assert all(torch.equal(one[name], other[name]) for name in one)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return dict(model.state_dict())


def test_paraphrases_in_histories_are_no_items_to_find(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "paraphrases.jsonl"
    lines = [{"item_id": f"i{row}", "paraphrases": [f"Film {row}"]} for row in range(50)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for ratio in (0.5, 1.0):
        out = tmp_path / f"run-{ratio}"
        config = settings(
            paraphrases=path,
            paraphrase_ratio=ratio,
            loss_on_history=True,
            validate_every=1,
            out=out,
        )
        train_sft(config)
        recommender = Recommender.from_pretrained(out, "cpu")
        assert not recommender.aliases
        found = recommender.recommend(["i3", "i8"], k=48)
        assert len({one.item_id for one in found}) == 48


def test_how_vectors_were_joined_stays_with_the_model(
    settings: Settings, vectors: Path, tmp_path: Path
) -> None:
    joined = tmp_path / "joined"
    joined.mkdir()
    shutil.copy(vectors, joined / "films.emb-teacher.npy")
    blocks = VectorBlocks(None, (TeacherBlock("runs/knn", "knn", "ab12", DIM),))
    blocks.save(joined)
    manifest = {"stage": "items embed", "results": {"file": "films.emb-teacher.npy"}}
    (joined / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    config = settings(vectors=str(joined / "films.emb-teacher.npy"), max_steps=1)
    train_sft(config)
    recommender = Recommender.from_pretrained(config.out, "cpu")
    assert RetrievalHead.load(config.out).blocks == blocks
    with pytest.raises(VectorError, match=r"comes without; make them with `.* --like MODEL"):
        recommender.with_catalog(Catalog.from_items([Item("x", "Other")], "others"))


def test_model_learns_to_retrieve_and_loads_from_its_folder_alone(
    settings: Settings, tmp_path: Path, chat_file: Path
) -> None:
    config = settings(
        loss_on_history=True, epochs=3, max_steps=24, batch_size=8, validate_every=1,
        train_item_vectors=True, chat=chat_file, chat_ratio=0.3, multi_round_ratio=0.3,
        checkpoint_every=5,
    )  # fmt: skip
    train_sft(config)
    manifest = read_json(config.out / "manifest.json")
    assert manifest["results"]["loss"] < 10
    moved = tmp_path / "moved"
    shutil.copytree(config.out, moved)
    shutil.rmtree(config.out)
    recommender = Recommender.from_pretrained(moved, "cpu")
    assert recommender.spec.method == "ret"
    for decode in ("beam", "list"):
        found = recommender.recommend(["i3", "i8"], k=12, exclude=["i1"], decode=decode)
        ids = [one.item_id for one in found]
        assert len(set(ids)) == 12
        assert not {"i1", "i3", "i8"} & set(ids)
    events = list(recommender.stream([{"role": "user", "content": "Hello"}], max_new_tokens=60))
    assert events
    # The weights of the language model load without the head, and nothing is said to be missing.
    _, info = AutoModelForCausalLM.from_pretrained(moved, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_retrieval_learns_what_a_teacher_expects(settings: Settings, tmp_path: Path) -> None:
    common = {"loss_on_history": True, "train_item_vectors": True, "max_steps": 6}
    plain = train_sft(settings(out=tmp_path / "plain", **common))
    soft = train_sft(settings(out=tmp_path / "soft", distill=0.9, workers=1, **common))
    first, second = head_of(plain), head_of(soft)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert read_json(soft / "manifest.json")["results"]["loss"] < 12
    found = Recommender.from_pretrained(soft, "cpu").recommend(["i3", "i8"], k=12)
    assert len({one.item_id for one in found}) == 12


def test_best_checkpoint_brings_back_its_head(settings: Settings) -> None:
    config = settings(
        tune="lora", epochs=4, max_steps=0, batch_size=13, learning_rate=0.1, scheduler="constant",
        keep_best=True, validate_every=1, validation_users=30,
    )  # fmt: skip
    train_sft(config)
    results = read_json(config.out / "manifest.json")["results"]
    # The last weights are not the best, or this test could not tell them apart.
    assert results["best_step"] < results["steps"]
    recommender = Recommender.from_pretrained(config.out, "cpu")
    split = leave_one_out(Histories.load(config.data, recommender.catalog))
    questions = validation_prompts(split, 30, config.seed)
    validate = ranking_validation(recommender, questions, exclude_seen=False)
    assert validate()["NDCG@10"] == pytest.approx(results["ndcg_best"])


def test_gradients_reach_what_is_trained_and_nothing_else(
    settings: Settings, tmp_path: Path, vectors: Path, tiny_folder: Path
) -> None:
    start = RetrievalHead.create(32, np.load(vectors))
    base = weights(tiny_folder)
    for name, trains, changes in (
        ("lora", {"lora", "projection"}, {"tune": "lora"}),
        ("vectors", {"lora", "projection", "vectors"},
         {"tune": "lora", "train_item_vectors": True}),
        ("head", {"projection"}, {"only_head": True, "tune": "lora"}),
        ("head-and-vectors", {"projection", "vectors"},
         {"only_head": True, "train_item_vectors": True}),
    ):  # fmt: skip
        run = train_sft(settings(out=tmp_path / name, **changes))
        head = RetrievalHead.load(run)
        changed = set()
        if not torch.equal(head.projection.weight, start.projection.weight):
            changed.add("projection")
        if not torch.equal(head.vectors, start.vectors):
            changed.add("vectors")
        assert torch.equal(head.center, start.center)
        assert torch.equal(head.scale, start.scale)
        if "lora" in trains:
            assert not (run / "model.safetensors").exists()
            backbone, _ = load_model(run, "cpu", merge_adapter=False)
            state = backbone.model.state_dict()
            adapters = [tensor for key, tensor in state.items() if "lora_B" in key]
            assert adapters
            if any(tensor.any() for tensor in adapters):
                changed.add("lora")
            # Beneath the adapters the backbone is as it was.
            for key, tensor in state.items():
                if "lora_" not in key and "token_adapter" not in key:
                    plain = key.replace("base_model.model.", "").replace("base_layer.", "")
                    if plain in base:
                        assert torch.equal(tensor, base[plain]), key
        else:
            found = weights(run)
            assert all(torch.equal(found[key], base[key]) for key in base)
        assert changed == trains, name


def test_loss_is_language_outside_spans_plus_items_at_their_openings(
    own_tiny_backbone: Backbone, titles: tuple[str, ...], vectors: Path
) -> None:
    """Against plain cross entropies, for a recommendation beside a row of general chat."""
    model, tokenizer = own_tiny_backbone.model, own_tiny_backbone.tokenizer
    item_tokens = ItemTokens.from_titles(list(titles), tokenizer)
    renderer = Renderer(tokenizer, item_tokens)
    hello = [Message("user", (Text("Hello"),)), Message("assistant", (Text("Sure, tell me"),))]
    asked = Message("user", (Text("I have seen "), ItemRef(4)))
    answer = Message("assistant", (Text("Here: "), ItemRef(7), Text(" and "), ItemRef(30)))
    samples = []
    for messages in ([asked, answer], hello):
        rendered = renderer.conversation(messages)
        written = np.array([rendered.loss_mask[span.start] for span in rendered.spans], dtype=bool)
        samples.append(Sample(rendered, written, 0))
    collator = Collator(
        item_tokens.trie(),
        eoi_token_id=own_tiny_backbone.eoi_token_id,
        pad_token_id=0,
        scope="every",
        retrieves=True,
    )
    head = RetrievalHead.create(32, np.load(vectors))

    def loss(batch: dict[str, Any]) -> torch.Tensor:
        scoped_forward(model, "plain", 2.0, Retrieval(head, weight=0.7))
        try:
            return model(batch["input_ids"], batch["targets"], items=batch["items"])
        finally:
            plain_forward(model)

    both, general = collator(samples), collator(samples[1:])
    labels = both["input_ids"].clone()
    states, rows = [], []
    for number, sample in enumerate(samples):
        size = len(sample.rendered.input_ids)
        labels[number, :size][torch.from_numpy(~sample.rendered.loss_mask)] = -100
        labels[number, size:] = -100
        for span, written in zip(sample.rendered.spans, sample.trained, strict=True):
            labels[number, span.start + 1 : span.end] = -100
            if written:
                states.append((number, span.start - 1))
                rows.append(span.row)
    assert rows == [7, 30]
    output = model(both["input_ids"], output_hidden_states=True)
    text = functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    before = torch.stack([output.hidden_states[-1][place] for place in states])
    items = functional.cross_entropy(head(before), torch.tensor(rows))
    torch.testing.assert_close(loss(both), text + 0.7 * items)
    unseen = replace(collator, unseen_only=True)(samples)
    scores = head(before)
    scores[0, 4] = scores[1, [4, 7]] = -torch.inf
    items = functional.cross_entropy(scores, torch.tensor(rows))
    torch.testing.assert_close(loss(unseen), text + 0.7 * items)
    assert both["num_spans"] == 2
    assert general["num_spans"] == 0
    text = functional.cross_entropy(
        model(general["input_ids"]).logits[:, :-1].flatten(0, 1),
        labels[1:, 1 : general["input_ids"].shape[1]].flatten(),
    )
    alone = loss(general)
    torch.testing.assert_close(alone, text)
    alone.backward()
    # Zero, not missing: processes that share gradients wait for every one of them.
    assert head.projection.weight.grad is not None
    assert not head.projection.weight.grad.any()
    assert not [name for name, _ in model.named_parameters() if "retrieval" in name]


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_adapter_merges_with_its_head(
    settings: Settings, tmp_path: Path, projection: Projection
) -> None:
    config = settings(tune="lora", projection=projection, projection_inner=6)
    run = train_sft(config)
    merged = merge_run(MergeSettings(run=run, out=tmp_path / "merged"))
    assert_same_head(run, merged)
    untrained = RetrievalHead.create(
        RetrievalHead.load(run).hidden,
        load_vectors(config.vectors, 50),
        inner=6 if projection == "mlp" else 0,
        seed=config.seed,
    ).state_dict()
    for name, weight in head_of(merged).items():
        # Every layer of the projection was trained.
        assert torch.equal(weight, untrained[name]) != name.startswith("projection"), name
    assert load_spec(merged).projection == projection
    histories = [["i1", "i5"], ["i7"], []]
    for decode in ("beam", "list"):
        one, other = (
            Recommender.from_pretrained(folder, "cpu").recommend_batch(
                histories, k=5, decode=decode
            )
            for folder in (run, merged)
        )
        assert [[r.item_id for r in found] for found in one] == [
            [r.item_id for r in found] for found in other
        ]


def test_a_head_of_another_training_is_refused(settings: Settings) -> None:
    run = train_sft(settings(max_steps=1))
    hidden = RetrievalHead.load(run).hidden
    RetrievalHead(hidden, 50, DIM, inner=6).save(run)
    message = r"retrieval\.safetensors: its projection is mlp, and .*incatalog\.json says linear"
    with pytest.raises(BackboneError, match=message):
        load_model(run, "cpu", verify=False)


@pytest.mark.long
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_interrupted_run_ends_with_the_same_bits(
    settings: Settings, tmp_path: Path, tune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from incatalog.training import sft
    from incatalog.training.trainer import ScopedTrainer

    config = settings(
        tune=tune, negatives=8, train_item_vectors=True, max_steps=6, checkpoint_every=2
    )
    whole = train_sft(replace(config, out=tmp_path / "whole"))

    step = ScopedTrainer.training_step

    def stop_after_four(self: Any, *given: Any, **named: Any) -> Any:
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return step(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ScopedTrainer, "training_step", stop_after_four)
        with pytest.raises(KeyboardInterrupt):
            sft.train_sft(config)
    assert (config.out / "checkpoints").exists()
    assert_same_head(train_sft(config), whole)


def test_another_catalog_needs_its_vectors(
    settings: Settings, tmp_path: Path, titles: tuple[str, ...]
) -> None:
    recommender = Recommender.from_pretrained(train_sft(settings()), "cpu")
    catalog = Catalog.from_items(
        [Item(f"b{row}", f"The Book of {title}") for row, title in enumerate(titles[:20])], "books"
    )
    with pytest.raises(VectorError, match=r"catalog books: .*incatalog items embed"):
        recommender.with_catalog(catalog)
    random = np.random.default_rng(0)
    with pytest.raises(VectorError, match="7 numbers an item"):
        recommender.with_catalog(catalog, vectors=random.standard_normal((20, 7)).astype("f"))
    with pytest.raises(VectorError, match="19 rows; expected one for each of the 20 items"):
        recommender.with_catalog(catalog, vectors=random.standard_normal((19, DIM)).astype("f"))
    books = recommender.with_catalog(
        catalog, vectors=random.standard_normal((20, DIM)).astype(np.float32)
    )
    for decode in ("beam", "list"):
        found = books.recommend(["b1"], k=19, decode=decode)
        assert {one.item_id for one in found} == {f"b{row}" for row in range(20)} - {"b1"}
    assert len(recommender.recommend(["i1"], k=3)) == 3  # the first one is as it was


def test_checkpoint_serves_a_real_catalog_it_never_saw(
    settings: Settings, tmp_path: Path, shared_data: Path
) -> None:
    films = Recommender.from_pretrained(train_sft(settings()), "cpu")
    catalog = Catalog.load(shared_data / "office")
    random = np.random.default_rng(0)
    vectors = random.standard_normal((len(catalog), DIM)).astype(np.float32)
    office = films.with_catalog(catalog, vectors=vectors)
    ids = [item.item_id for item in catalog.items]
    reader = AnswerReader(
        catalog,
        [item.title_t or item.title for item in office.catalog.items],
        office.item_tokens,
        office.backbone.tokenizer,
        office.spec.list_form,
    )
    for size in (0, 10, len(ids) // 2, len(ids) - 7):
        without = set(random.permutation(len(ids))[:size].tolist())
        excluded = office.excluded([ids[row] for row in without])
        requests = [office.list_request([row, row + 1], 10, excluded) for row in (5, 900)]
        for answer in office.engine.complete(requests):
            count = min(10, len(ids) - size)
            assert len(set(answer.items)) == len(answer.items) == count
            assert not without & set(answer.items)
            assert answer.finish_reason == ("items" if count == 10 else "no_item_left")
            # What stands in the text is read back as those very items: none is out of the catalog.
            assert [named.row for named in reader.read(answer.token_ids)] == list(answer.items)
    everything = office.excluded(ids)
    [closed] = office.engine.complete([office.list_request([5], 10, everything)])
    assert (closed.token_ids, closed.finish_reason) == ((), "no_item_left")
    with pytest.raises(NoItemLeftError, match="no item left to recommend"):
        office.recommend([ids[5]], exclude=ids)


def test_settings_that_contradict_one_another_are_refused(
    settings: Settings, tmp_path: Path, data: Path
) -> None:
    for changes, message in (
        ({"vectors": ""}, "--vectors.*incatalog items embed"),
        ({"vectors": "nowhere.npy"}, "--vectors nowhere.npy: no such file"),
        ({"method": "cgen"}, "--vectors: --method cgen has no use"),
        ({"method": "cgen", "vectors": "", "only_head": True}, "--only-head"),
        (
            {"method": "cgen", "vectors": "", "projection": "mlp"},
            "--projection mlp: --method cgen finds no items by hidden states",
        ),
        ({"item_form": "codes"}, "--item-form codes: --method ret writes titles"),
        ({"only_head": True, "train_lm_head": True}, "--only-head: leaves"),
        ({"retrieval_weight": 0.0}, "--retrieval-weight 0.0"),
        ({"negatives": -1}, "--negatives -1"),
        ({"method": "cgen", "vectors": "", "unseen_only": True}, "--unseen-only: is about the sof"),
        ({"unseen_only": True, "negatives": 4}, "--unseen-only: .*use --negatives 0"),
        ({"unseen_only": True, "candidate_ratio": 0.5}, "--unseen-only: .*use --candidate-ratio 0"),
        (
            {"unseen_only": True, "distill": 0.5, "teacher": __file__},
            "--unseen-only: --distill expects nothing|--teacher",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            check_config(settings(**changes))
    short = tmp_path / "short.npy"
    save_vectors(short, np.ones((3, 4), dtype=np.float32))
    with pytest.raises(VectorError, match="3 rows; expected one for each of the 50 items"):
        train_sft(settings(vectors=str(short)))
    assert HEAD_FILE not in {path.name for path in data.iterdir()}
