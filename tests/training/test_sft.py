from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerControl, TrainerState

from damage import cut, edit_json, flip_bit
from incatalog.artifacts import read_json
from incatalog.checksums import verify_checksums
from incatalog.config import Method
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.errors import ArtifactError, ConfigError, DataError, IncatalogError
from incatalog.items.aliases import ALIASES, Aliases
from incatalog.model.saved import load_model
from incatalog.recommender.items import ModelItems
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.teacher import load_teacher
from incatalog.training.callbacks import BestKept
from incatalog.training.materials import build_backbone, read_materials, with_item_form
from incatalog.training.merge import merge_run
from incatalog.training.settings import MergeSettings, SftSettings
from incatalog.training.sft import build_trainer, check_config, model_spec, train_sft
from incatalog.training.trainer import plain_forward
from incatalog.training.training_run import TrainedModel, TrainingRun
from incatalog.training.validation import ranking_validation, validation_prompts
from published_server import published, scores_of
from serving import Process, served

Settings = Callable[..., SftSettings]


@pytest.fixture
def settings(tmp_path: Path, data: Path, teacher: Path, tiny_folder: Path) -> Settings:
    """Settings of a training of seconds, to be changed by keyword."""
    base = SftSettings(
        model=str(tiny_folder), data=data, out=tmp_path / "run", teacher=str(teacher),
        tune="full", history_form="span", list_length=3, max_history=4, epochs=1, batch_size=4,
        max_steps=4, learning_rate=1e-2, validate_every=0, logging_steps=1, device="cpu",
    )  # fmt: skip

    def change(**changes: Any) -> SftSettings:
        return replace(base, **changes)

    return change


def weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors"
    return load_file(folder / (name if (folder / name).exists() else "model.safetensors"))


def assert_same_bits(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def logged(folder: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


def command(config: SftSettings) -> list[str]:
    """The settings as arguments of a Python process that trains with them."""
    program = (
        "import json, sys; from pathlib import Path\n"
        "from incatalog.training.settings import SftSettings;"
        "from incatalog.training.sft import train_sft;"
        "given = json.loads(sys.argv[1]);"
        "paths = {k: Path(given[k]) for k in ('data', 'out')};"
        "train_sft(SftSettings(**(given | paths)))"
    )
    return ["-c", program, json.dumps(vars(config), default=str)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


def test_tiny_model_learns_from_scratch(settings: Settings, capsys: Any) -> None:
    config = settings(
        model="tiny", loss_on_history=True, epochs=3, max_steps=24, validate_every=1, batch_size=8
    )
    assert train_sft(config) == config.out
    losses = logged(config.out, "train/loss")
    assert len(losses) == 15  # 3 epochs of 39 users, 8 a step
    assert losses[-1] < 0.8 * losses[0]
    assert len(logged(config.out, "eval/loss")) == 3
    assert read_json(config.out / "manifest.json")["status"] == "finished"
    assert not (config.out / "checkpoints").exists()
    assert "1 of 40 users have a single item" in capsys.readouterr().err.replace("\n", " ")

    backbone, spec = load_model(config.out, "cpu")
    assert (spec.base, spec.history_form, spec.list_length) == ("tiny", "span", 3)
    saved = Catalog.load(config.out)
    assert saved.titles == Catalog.load(config.data).titles
    assert all(item.title_t for item in saved.items)
    assert backbone.tokenizer.chat_template

    stamp = (config.out / "model.safetensors").stat().st_mtime_ns
    train_sft(config)  # finished: nothing to do
    assert (config.out / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ArtifactError, match="epochs"):
        train_sft(replace(config, epochs=4))


@pytest.mark.parametrize("method", ["cgen", "token"])
def test_training_without_a_scope_is_that_of_transformers(
    settings: Settings, index: Path, method: Method
) -> None:
    config = with_item_form(settings(scope="off", method=method, index=str(index)))
    check_config(config)
    inputs = read_materials(config, on_cpu=True)
    backbone, codes = build_backbone(config, inputs, "cpu"), inputs.semantic_ids
    spec = model_spec(config, codes)
    items = ModelItems.of(backbone.tokenizer, spec.item_form, inputs.catalog, codes)
    model = TrainedModel(backbone, spec, items, codes, config.index_folder)
    run = TrainingRun("train sft", config)
    trainer = build_trainer(config, run, inputs, model, Aliases())
    samples = [trainer.train_dataset[number] for number in range(4)]
    batch = trainer.data_collator(samples)
    found = trainer.compute_loss(backbone.model.eval(), batch)
    plain_forward(backbone.model)
    labels = batch["input_ids"].clone()
    for row, sample in zip(labels, samples, strict=True):
        rendered = sample.rendered
        wanted = torch.zeros(len(row), dtype=torch.bool)
        wanted[: len(rendered.loss_mask)] = torch.from_numpy(rendered.loss_mask)
        row[~wanted] = -100
        assert sample.trained.any()
    expected = backbone.model(batch["input_ids"], labels=labels).loss
    torch.testing.assert_close(found, expected)
    assert found > 0


def test_weights_that_rank_best_are_kept(settings: Settings) -> None:
    config = settings(
        epochs=4, max_steps=0, batch_size=13, learning_rate=0.3, scheduler="constant",
        keep_best=True, validate_every=1, validation_users=30, exclude_seen=True,
    )  # fmt: skip
    train_sft(config)
    measured = logged(config.out, "eval/NDCG@10")
    best = max(measured)
    results = read_json(config.out / "manifest.json")["results"]
    assert results["ndcg_best"] == pytest.approx(best)
    assert results["best_step"] == 3 * (1 + measured.index(best))
    # The last weights are worse, or this test could not tell them apart.
    assert measured[-1] < best
    recommender = Recommender.from_pretrained(config.out, "cpu")
    split = leave_one_out(Histories.load(config.data, recommender.catalog))
    questions = validation_prompts(split, 30, config.seed)
    validate = ranking_validation(recommender, questions, exclude_seen=True)
    assert validate()["NDCG@10"] == pytest.approx(best)


def test_other_names_count_in_the_ranking_that_is_kept(
    settings: Settings, data: Path, tmp_path: Path
) -> None:
    config = settings(
        model="tiny", paraphrases=write_paraphrases(tmp_path, data), paraphrases_in="targets",
        epochs=2, max_steps=0, batch_size=13, learning_rate=0.01, tune="full",
        keep_best=True, validate_every=1, validation_users=30,
    )  # fmt: skip
    train_sft(config)
    recommender = Recommender.from_pretrained(config.out, "cpu")
    split = leave_one_out(Histories.load(config.data, recommender.catalog))
    questions = validation_prompts(split, 30, config.seed)
    found = ranking_validation(recommender, questions, exclude_seen=False)()
    results = read_json(config.out / "manifest.json")["results"]
    assert found["NDCG@10"] == pytest.approx(results["ndcg_best"])
    recommender = Recommender(recommender.backbone, recommender.spec, recommender.catalog)
    titles_alone = ranking_validation(recommender, questions, exclude_seen=False)()
    assert titles_alone["NDCG@10"] != pytest.approx(found["NDCG@10"])


def test_training_stops_when_the_ranking_gets_no_better(settings: Settings) -> None:
    config = settings(
        epochs=9, max_steps=0, batch_size=13, learning_rate=1e-12, keep_best=True,
        validate_every=1, patience=2,
    )  # fmt: skip
    train_sft(config)
    assert len(logged(config.out, "eval/NDCG@10")) == 3
    results = read_json(config.out / "manifest.json")["results"]
    assert (results["best_step"], results["steps"]) == (3, 9)


@pytest.mark.parametrize(
    ("values", "patience", "stops"),
    [
        ([0.3, 0.2], 1, True),
        ([0.3, 0.3], 1, True),
        ([0.2, 0.3], 1, False),
        ([0.3, 0.1, 0.2], 2, True),
        ([0.1, 0.3, 0.2], 2, False),
        ([0.3], 1, False),
        ([0.3, 0.2, 0.1], 0, False),
    ],
)
def test_patience_counts_validations_since_the_best(
    values: list[float], patience: int, stops: bool
) -> None:
    log = [entry for value in values for entry in ({"loss": 1.0}, {"eval_NDCG@10": value})]
    state, control = TrainerState(log_history=log, max_steps=9), TrainerControl()
    BestKept("eval_NDCG@10", patience).on_evaluate(None, state, control)
    assert control.should_training_stop == stops
    # As after a checkpoint that was written at the end of a training.
    control = TrainerControl()
    BestKept("eval_NDCG@10", patience).on_step_end(None, state, control)
    assert control.should_training_stop == stops


def test_last_step_is_validated(settings: Settings) -> None:
    train_sft(
        config := settings(epochs=2, max_steps=4, batch_size=13, keep_best=True, validate_every=1)
    )
    assert len(logged(config.out, "eval/NDCG@10")) == 2


def test_accumulated_batches_equal_one_large_batch(settings: Settings, tmp_path: Path) -> None:
    whole = train_sft(settings(batch_size=8, out=tmp_path / "whole"))
    parts = train_sft(settings(batch_size=4, gradient_accumulation=2, out=tmp_path / "parts"))
    expected = weights(whole)
    for name, found in weights(parts).items():
        torch.testing.assert_close(found, expected[name], atol=2e-4, rtol=1e-3)
    assert logged(parts, "train/loss") == pytest.approx(logged(whole, "train/loss"), rel=1e-4)


@pytest.mark.parametrize("changes", [{}, {"distill": 0.8, "loss_on_history": True}])
def test_workers_change_nothing(
    settings: Settings, tmp_path: Path, changes: dict[str, Any]
) -> None:
    first = train_sft(settings(out=tmp_path / "none", **changes))
    second = train_sft(settings(out=tmp_path / "two", workers=2, **changes))
    assert_same_bits(first, second)


def test_distilled_training_differs_and_says_what_it_was_told(
    settings: Settings, tmp_path: Path, capsys: Any
) -> None:
    plain = train_sft(settings(out=tmp_path / "plain"))
    assert "probability" not in capsys.readouterr().err
    config = settings(out=tmp_path / "soft", distill=0.8)
    soft = train_sft(config)
    # With 64 of 50 items no others are left.
    said = " ".join(capsys.readouterr().err.split())
    assert "have 100% of the teacher's probability" in said
    first, second = weights(plain), weights(soft)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(ArtifactError, match="distill_temperature"):
        train_sft(replace(config, distill_temperature=2.0))


def test_every_prefix_counts_in_the_length_of_a_training(settings: Settings, data: Path) -> None:
    config = settings(window="every-prefix", max_steps=0, batch_size=64)
    train_sft(config)
    split = leave_one_out(Histories.load(data, Catalog.load(data)))
    prefixes = sum(max(0, len(split.train(user)) - 1) for user in range(len(split)))
    assert read_json(config.out / "manifest.json")["results"]["steps"] == -(-prefixes // 64)


# Dropout makes the state of the random generators count, validation moves it.
RESUMED: dict[str, dict[str, Any]] = {
    "last": {"tune": "lora", "lora_r": 4, "lora_dropout": 0.3, "checkpoint_every": 3},
    "best": {
        "model": "tiny", "tiny_hidden": 32, "tiny_layers": 1, "tiny_dropout": 0.3,
        "history_dropout": 0.3, "keep_best": True, "patience": 3,
    },
    "soft": {
        "distill": 0.7, "loss_on_history": True, "window": "every-prefix", "history_dropout": 0.3,
        "checkpoint_every": 3, "max_steps": 18,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(RESUMED["last"], id="last", marks=pytest.mark.long),
        pytest.param(RESUMED["soft"], id="soft", marks=pytest.mark.long),
        pytest.param(RESUMED["best"], id="best", marks=pytest.mark.slow),
    ],
)
def test_killed_run_resumes_to_the_same_bits(
    settings: Settings, tmp_path: Path, changes: dict[str, Any]
) -> None:
    usual = {"max_steps": 0, "epochs": 6, "validate_every": 1, "validation_users": 4}
    config = settings(**(usual | changes))
    whole = train_sft(replace(config, out=tmp_path / "whole"))

    killed = replace(config, out=tmp_path / "killed")
    checkpoints = killed.out / "checkpoints"
    process = subprocess.Popen(
        [sys.executable, *command(killed)], env=environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("checkpoint-*/complete.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed.out / "incatalog.json").exists()
    # What a kill in the middle of a checkpoint leaves behind.
    half = checkpoints / "checkpoint-999"
    half.mkdir()
    (half / "trainer_state.json").write_text("{", encoding="utf-8")

    # TensorBoard reads its files by the second they were begun in. A new process would need several
    # to import torch; this one does not, and its file could come first.
    time.sleep(1.1)
    assert train_sft(killed) == killed.out
    assert_same_bits(whole, killed.out)
    assert logged(killed.out, "train/loss") == logged(whole, "train/loss")


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"distill": 0.8, "loss_on_history": True}, id="soft", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one_with_the_doubled_batch(
    settings: Settings, tmp_path: Path, changes: dict[str, Any]
) -> None:
    one = train_sft(settings(batch_size=4, out=tmp_path / "one", **changes))
    two = settings(batch_size=2, out=tmp_path / "two", **changes)
    script = tmp_path / "train.py"
    flag, program, given = command(two)
    assert flag == "-c"
    script.write_text(program, encoding="utf-8")
    # Without the switch accelerate starts one process where there is no GPU, unless MPI is there.
    launch = [
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0", str(script), given,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *launch],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert logged(two.out, "train/loss") == pytest.approx(logged(one, "train/loss"), rel=1e-4)
    expected = weights(one)
    for name, found in weights(two.out).items():
        torch.testing.assert_close(found, expected[name], atol=2e-4, rtol=1e-3)


def test_the_polynomial_schedule_has_a_power_and_an_end(settings: Settings) -> None:
    rate, steps = 0.01, 4
    config = settings(
        model="tiny", max_steps=steps, learning_rate=rate, warmup_ratio=0.0, logging_steps=1,
        scheduler_power=2.0, scheduler_end=0.2, adam_eps=1e6,
    )  # fmt: skip
    train_sft(config)
    expected = [rate * (0.2 + 0.8 * (1 - step / steps) ** 2) for step in range(steps)]
    assert logged(config.out, "train/learning_rate") == pytest.approx(expected)
    # With so large an epsilon AdamW hardly moves.
    untrained = replace(config, out=config.out.with_name("untrained"), learning_rate=1e-12)
    torch.testing.assert_close(
        weights(config.out), weights(train_sft(untrained)), atol=1e-3, rtol=0
    )


def test_adapter_of_a_tiny_model_merges_to_the_same_logits(
    settings: Settings, tmp_path: Path
) -> None:
    config = settings(model="tiny", tune="lora", max_steps=2)
    train_sft(config)
    merged = merge_run(MergeSettings(run=config.out, out=tmp_path / "merged"))
    check_merged(config.out, merged)
    result = read_json(config.out / "manifest.json")["results"]["NDCG@10"]
    for folder in (config.out, merged):
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "at the end of its training: HR@10" in card
        assert f"NDCG@10 {result:.4f}" in card
    verify_checksums(config.out)


@pytest.fixture
def careless_base(tiny_folder: Path, tmp_path: Path) -> str:
    """A chat model with sampling flags beside `do_sample: false`, as many are published."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder, folder)
    flags = {"do_sample": False, "temperature": 0.7, "top_k": 20}
    edit_json(folder / "generation_config.json", lambda config: config.update(flags))
    return str(folder)


def test_sampling_flags_of_a_base_stop_no_training(
    settings: Settings, careless_base: str, tmp_path: Path
) -> None:
    config = settings(model=careless_base, tune="lora", max_steps=2, checkpoint_every=1)
    train_sft(config)
    check_merged(config.out, merge_run(MergeSettings(run=config.out, out=tmp_path / "merged")))
    whole = settings(model=careless_base, max_steps=2, checkpoint_every=1, out=tmp_path / "whole")
    train_sft(whole)
    assert len(Recommender.from_pretrained(whole.out, "cpu").recommend(["i1"], k=2)) == 2


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_flipped_bit_or_a_cut_in_any_file_is_named(settings: Settings, tune: str) -> None:
    config = settings(model="tiny", tune=tune, max_steps=1)
    train_sft(config)
    files = read_json(config.out / "manifest.json")["files"]
    kept = {"model.safetensors"} if tune == "full" else {"adapter_model.safetensors"}
    kept |= {"incatalog.json", "metas.jsonl", "tokenizer.json", "config.json"} - (
        set() if tune == "full" else {"config.json"}
    )
    assert kept <= files.keys()
    assert tune == "full" or "base/model.safetensors" in files
    for name in files:
        path = config.out / name
        whole = path.read_bytes()
        for damage in (flip_bit, lambda path: cut(path, 1), Path.unlink):
            damage(path)
            with pytest.raises(IncatalogError, match=re.escape(path.name)) as caught:
                load_model(config.out, "cpu")
            assert "\n" not in str(caught.value)
            path.write_bytes(whole)
    load_model(config.out, "cpu")
    # A change that is meant, and those who have no time to look.
    settings_file = config.out / ("" if tune == "full" else "base") / "generation_config.json"
    edit_json(settings_file, lambda found: found.update(repetition_penalty=1.1))
    with pytest.raises(ArtifactError, match=r"generation_config\.json: is not as it was written"):
        Recommender.from_pretrained(config.out, "cpu")
    Recommender.from_pretrained(config.out, "cpu", verify=False)
    if tune == "lora":
        merge = MergeSettings(run=config.out, out=config.out.parent / "merged")
        with pytest.raises(ArtifactError, match=r"generation_config\.json: is not as"):
            merge_run(merge)
        merge_run(replace(merge, verify=False))


def check_merged(run: Path, merged: Path) -> None:
    """A merged folder loads with plain transformers and yields the adapter's logits."""
    adapted, _ = load_model(run, "cpu")
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(merged)
    ids = tokenizer("1. <SOI>Night Train<EOI>\n2. <SOI>", return_tensors="pt").input_ids
    assert adapted.soi_token_id in ids
    with torch.no_grad():
        expected = adapted.model.eval()(ids).logits
        found = plain(ids).logits
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    assert Catalog.load(merged).titles == Catalog.load(run).titles


@pytest.mark.long
def test_smollm2_takes_real_steps_and_merges(
    settings: Settings, smollm2_folder: Path, tmp_path: Path
) -> None:
    config = settings(
        model="smollm2", tune="lora", lora_r=8, lora_alpha=16.0, lora_dropout=0.0, batch_size=2,
        max_steps=3, learning_rate=1e-3, history_form="title", mention_control_tokens=False,
    )  # fmt: skip
    train_sft(config)
    losses = logged(config.out, "train/loss")
    assert len(losses) == 3
    assert all(0.0 < loss < 10.0 for loss in losses)
    adapter = weights(config.out)
    assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in adapter.items())
    assert any("trainable_tokens" in name for name in adapter)
    merged = merge_run(MergeSettings(run=config.out, out=tmp_path / "merged"))
    check_merged(config.out, merged)


def write_paraphrases(folder: Path, data: Path) -> Path:
    """Two other names of each of the first twenty films, one of which is a title."""
    path = folder / "paraphrases.jsonl"
    items = Catalog.load(data).items
    lines = [
        {"item_id": item.item_id, "title": item.title, "paraphrases": [f"Film {number}", *others]}
        for number, item in enumerate(items[:20])
        for others in [[f"The film {number}"] if number else [items[30].title]]
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("place", ["history", "targets", "both"])
def test_model_carries_the_names_it_was_taught_to_write(
    settings: Settings, data: Path, tmp_path: Path, capsys: Any, place: Any
) -> None:
    config = settings(
        model="tiny", paraphrases=write_paraphrases(tmp_path, data), paraphrases_in=place,
        loss_on_history=True, max_steps=6, validate_every=1, tune="lora", lora_r=4,
    )  # fmt: skip
    train_sft(config)
    said = " ".join(capsys.readouterr().err.split())
    assert "39 paraphrases of 20 of 50 items; left out are 1 that are a title" in said
    merged = merge_run(MergeSettings(run=config.out, out=tmp_path / "merged"))
    for folder in (config.out, merged):
        recommender = Recommender.from_pretrained(folder, "cpu")
        assert recommender.spec.aliases == len(recommender.aliases) == (place != "history") * 39
        assert (folder / ALIASES).exists() == (place != "history")
        trie = recommender.grounding.trie
        assert (trie.num_items, trie.num_positions) == (50, 50 + len(recommender.aliases))
        for decode in ("beam", "list"):
            found = recommender.recommend(["i3", "i7"], k=48, decode=decode)
            assert len({one.item_id for one in found} - {"i3", "i7"}) == 48
            titles = {item.item_id: item.title for item in recommender.catalog.items}
            assert all(one.title == titles[one.item_id] for one in found)
    with pytest.raises(ArtifactError, match="paraphrase_ratio"):
        train_sft(replace(config, paraphrase_ratio=0.1))


def test_paraphrases_of_another_catalog_are_refused_before_anything_is_written(
    settings: Settings, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "paraphrases.jsonl"
    path.write_text('{"item_id": "i0", "title": "Ben Hur", "paraphrases": ["B"]}', encoding="utf-8")
    config = settings(paraphrases=path)
    with pytest.raises(DataError, match=r"paraphrases\.jsonl:1: item 'i0' is called 'Ben Hur'"):
        train_sft(config)
    assert not config.out.exists()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"paraphrases": Path("nowhere")}, "--paraphrases nowhere: no such file.*rewrite apply"),
    ({"paraphrases_in": "both"}, "--paraphrases-in both: no paraphrases; add --paraphrases FILE"),
    (
        {"paraphrases": Path(__file__), "paraphrases_in": "targets", "method": "token"},
        "--paraphrases-in targets: --method token .* use --paraphrases-in history",
    ),
    (
        {
            "paraphrases": Path(__file__),
            "paraphrases_in": "both",
            "method": "ret",
            "vectors": __file__,
        },
        "--paraphrases-in both: --method ret .* use --paraphrases-in history",
    ),
    ({"paraphrase_ratio": 1.5}, "--paraphrase-ratio 1.5: expected 0 to 1"),
    ({"loss_on_history": True, "history_form": "title"}, "--loss-on-history.*--history-form span"),
    ({"chat_ratio": 0.5}, "--chat-ratio 0.5.*--chat FILE"),
    ({"multi_round_ratio": 0.5}, "--multi-round-ratio 0.5.*--chat FILE"),
    ({"chat": Path("nowhere.json")}, "--chat nowhere.json: no such file"),
    ({"data": Path("nowhere")}, "--data nowhere: no such folder"),
    ({"teacher": "nowhere"}, "--teacher nowhere: no such folder.*incatalog teacher fit"),
    (
        {"distill": 0.5, "teacher": ""},
        "--distill: learns from a teacher; add --teacher RUN or URL, or use --distill 0",
    ),
    ({"distill": 0.5, "loss": "focal-items"}, "--distill: .*--loss focal-items .*use --loss plain"),
    (
        {"distill": 0.5, "method": "ret", "vectors": __file__, "negatives": 9},
        "--distill: .*use --negatives 0",
    ),
    ({"distill": 1.5}, "--distill 1.5: expected 0 to 1"),
    (
        {"scope": "off", "method": "ret", "vectors": __file__},
        "--scope off: --method ret finds items by their vectors .*leave it out",
    ),
    ({"scope": "off", "distill": 0.5}, "--distill: .*--scope off .*use --scope every"),
    (
        {"answer_form": "title", "method": "token"},
        "--answer-form title: --method token .*use --method cgen",
    ),
    (
        {"answer_form": "title", "history_form": "span"},
        "--answer-form title: .*use --history-form title",
    ),
    (
        {"answer_form": "title", "history_form": "auto", "distill": 0.5},
        "--answer-form title: --distill .*use --distill 0",
    ),
    (
        {"answer_form": "title", "history_form": "auto", "loss": "focal-items"},
        "--answer-form title: --loss focal-items .*use --loss plain or focal",
    ),
    (
        {
            "answer_form": "title",
            "history_form": "auto",
            "keep_best": True,
            "validate_every": 1,
        },
        "--answer-form title: --keep-best .*leave it out",
    ),
    (
        {
            "answer_form": "title",
            "history_form": "auto",
            "wording": "test-single-turn-mention",
        },
        "--wording test-single-turn-mention: mentions the control tokens",
    ),
    ({"distill_temperature": 0.0}, "--distill-temperature 0.0: expected more than 0"),
    ({"candidate_ratio": 1.0, "max_candidates": 2}, "--max-candidates 2.*--list-length 3"),
    (
        {"candidate_ratio": 1.0, "max_candidates": 5, "min_candidates": 6},
        "--min-candidates 6: longer than --max-candidates 5",
    ),
    ({"min_candidates": -1}, "--min-candidates -1: expected at least 0"),
    ({"soi_token": ""}, "--soi-token '': expected the text of a token"),
    ({"eoi_token": " x"}, "--eoi-token ' x': expected the text of a token"),
    ({"eoi_token": "<SOI>"}, "--eoi-token <SOI>: is that of --soi-token too; expected two tokens"),
    ({"wording": "polite"}, "--wording: no wording is named 'polite'"),
    ({"wording": "train-select"}, "--wording train-select: offers candidates"),
    ({"quantization": "4bit", "tune": "lora"}, "--quantization 4bit: needs a CUDA device"),
    ({"history_dropout": 1.5}, "--history-dropout 1.5: expected 0 to 1"),
    ({"tiny_dropout": 0.1}, "--tiny-dropout 0.1: no/such-model is not made here; use --model tiny"),
    ({"keep_best": True}, "--keep-best: chooses by validations; give --validate-every EPOCHS"),
    ({"patience": 2}, "--patience.*add --keep-best"),
    (
        {"validate_every": 1, "keep_best": True, "checkpoint_every": 5},
        "--checkpoint-every 5: with --keep-best checkpoints come with the validations",
    ),
    ({"candidate_ratio": 1.5}, "--candidate-ratio 1.5: expected 0 to 1"),
    ({"chat_ratio": -0.1}, "--chat-ratio -0.1: expected at least 0"),
    ({"batch_size": 0}, "--batch-size 0: expected at least 1"),
    ({"list_length": 0}, "--list-length 0: expected at least 1"),
    ({"learning_rate": 0.0}, "--learning-rate 0.0: expected more than 0"),
    ({"lora_r": 0}, "--lora-r 0: expected at least 1"),
    ({"seed": -1}, "--seed -1: expected at least 0"),
    ({"device": "cuda:77"}, "--device cuda:77: not usable"),
    ({"device": "abacus"}, "--device abacus: not usable"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[next(iter(c)) for c, _ in WRONG])
def test_bad_settings_name_the_flag_before_anything_loads(
    settings: Settings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(settings(model="no/such-model", **changes))
    with pytest.raises(ConfigError, match=message):
        train_sft(settings(model="no/such-model", **changes))
    assert not settings().out.exists()


def test_a_model_with_other_control_tokens_is_gone_on_with_by_those(
    settings: Settings, tiny_folder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    described = {"base": "x", "tokenizer_fingerprint": "y", "soi_token": "[item]"}
    (model / "incatalog.json").write_text(json.dumps(described))
    message = r"--soi-token <SOI>, --eoi-token <EOI>: .*trained with \[item\] and <EOI>; give those"
    with pytest.raises(ConfigError, match=message):
        check_config(settings(model=str(model)))
    check_config(settings(model=str(model), soi_token="[item]"))


def test_teacher_of_another_catalog_is_refused(settings: Settings, tmp_path: Path) -> None:
    config = settings(model="no/such-model")
    catalog = Catalog.load(config.data)
    other = Catalog.from_items(reversed(catalog.items), "other")
    other.save(tmp_path / "data")
    sequences = (config.data / "sequential.jsonl").read_bytes()
    (tmp_path / "data" / "sequential.jsonl").write_bytes(sequences)
    with pytest.raises(ConfigError, match=r"--teacher: .*fitted on another catalog"):
        train_sft(replace(config, data=tmp_path / "data"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"--teacher: .*teacher.json"):
        train_sft(replace(config, teacher=str(tmp_path / "empty")))
    assert not config.out.exists()


def test_samples_longer_than_the_model_reads_are_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"--max-length 5000: .* reads 1024 at most"):
        train_sft(settings(max_length=5000))


@pytest.mark.long
def test_a_served_teacher_gives_the_same_samples(
    settings: Settings, data: Path, teacher: Path, tmp_path: Path
) -> None:
    catalog = Catalog.load(data)
    local = load_teacher(teacher, catalog, "cpu")
    train_sft(settings(out=tmp_path / "local"))
    process = Process(teacher, data)
    try:
        train_sft(settings(out=tmp_path / "served", teacher=process.url))
        # Workers are forked from a process that has asked already.
        train_sft(settings(out=tmp_path / "workers", teacher=process.url, workers=2))
    finally:
        process.kill()
    assert_same_bits(tmp_path / "local", tmp_path / "served")
    assert_same_bits(tmp_path / "local", tmp_path / "workers")
    changed = served(local, catalog, fingerprint="another", port=process.port)
    with changed as url, pytest.raises(ArtifactError, match=r"other settings .contents of teacher"):
        train_sft(settings(out=tmp_path / "served", teacher=url))


def test_a_published_server_teaches_and_is_named_once(
    settings: Settings, data: Path, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = Catalog.load(data)
    scoring = scores_of(load_teacher(teacher, catalog, "cpu"))
    with published(scoring, catalog) as server:
        train_sft(settings(teacher=server.url, max_steps=2))
        told = [line for line in capsys.readouterr().err.splitlines() if server.url in line]
        assert [line.split(": ")[:2] for line in told] == [
            [f"--teacher {server.url}", "a published teacher server"]
        ]
        needs = rf"--distill 0.5: needs log-probabilities .* at {server.url} does not have"
        with pytest.raises(ConfigError, match=needs):
            train_sft(settings(teacher=server.url, distill=0.5, out=settings().out / "never"))
        assert not (settings().out / "never").exists()
        port = server.server_port
    with published(scoring, catalog, range(len(catalog) - 2)) as fewer:
        unknown = rf"--teacher {fewer.url}: may ask about item 'i\d+' and 1 more, which .* not know"
        with pytest.raises(ConfigError, match=unknown):
            train_sft(settings(teacher=fewer.url, out=settings().out / "never"))
    changed = published(lambda rows: -scoring(rows), catalog, port=port)
    with changed, pytest.raises(ArtifactError, match=r"other settings .contents of teacher"):
        train_sft(settings(teacher=server.url, max_steps=2))


def test_nobody_at_the_teachers_address(
    settings: Settings, data: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog.load(data)
    with served(load_teacher(teacher, catalog, "cpu"), catalog) as url:
        pass
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with pytest.raises(ConfigError, match=f"--teacher: {url}/teacher: no answer after"):
        train_sft(settings(teacher=url))
