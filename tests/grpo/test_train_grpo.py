from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from damage import edit_json
from incatalog import Catalog, Item, Recommender
from incatalog.artifacts import read_json, write_json
from incatalog.data.vectors import save_vectors
from incatalog.errors import ArtifactError, BackboneError, ConfigError, DataError
from incatalog.grpo.policy import GAP
from incatalog.grpo.rewards import Batch
from incatalog.grpo.rollouts import EngineSampler
from incatalog.grpo.settings import GrpoSettings
from incatalog.grpo.train_grpo import check_config, train_grpo
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.training.merge import merge_run
from incatalog.training.settings import MergeSettings, SftSettings
from incatalog.training.sft import train_sft
from incatalog.training.validation import Prompt
from published_server import published

pytest.importorskip("trl", reason="GRPO needs trl: pip install 'incatalog[grpo]'")

Settings = Callable[..., GrpoSettings]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory,
    data: Path,
    index: Path,
    tiny_folder: Path,
    titles: tuple[str, ...],
) -> dict[str, Path]:
    """One model of each method, trained for two steps."""
    folder = tmp_path_factory.mktemp("models")
    vectors = folder / "films.emb-words-t.npy"
    random = np.random.default_rng(3)
    save_vectors(vectors, random.standard_normal((len(titles), 12)).astype(np.float32))
    base = SftSettings(
        model=str(tiny_folder), data=data, out=folder, tune="full", history_form="span",
        list_form="plain", wording="test-as-trained", list_length=3, max_history=4, batch_size=4,
        max_steps=2, learning_rate=1e-2, validate_every=0, device="cpu",
    )  # fmt: skip
    changes: dict[str, dict[str, Any]] = {
        "cgen": {},
        "token": {"index": str(index)},
        "ret": {"vectors": str(vectors)},
    }
    for method, settings in changes.items():
        train_sft(replace(base, method=method, out=folder / method, **settings))
    return {method: folder / method for method in changes}


@pytest.fixture
def settings(tmp_path: Path, data: Path, models: dict[str, Path]) -> Settings:
    """Settings of a training of seconds, to be changed by keyword."""
    base = GrpoSettings(
        model=models["cgen"], data=data, out=tmp_path / "run", reward=("ndcg",), list_length=3,
        next_items=3, num_generations=4, batch_size=8, max_steps=3, learning_rate=1e-3,
        tune="full", validation_users=8, checkpoint_every=2, logging_steps=1, device="cpu",
    )  # fmt: skip

    def change(**changes: Any) -> GrpoSettings:
        return replace(base, **changes)

    return change


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def logged(folder: Path, name: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


@pytest.mark.parametrize("method", ["cgen", "token", "ret"])
def test_policy_is_the_one_that_was_sampled_from(
    method: str, settings: Settings, models: dict[str, Path], tmp_path: Path
) -> None:
    # The learning rate rises from 0, so that the second step still sees the model it starts with.
    out = train_grpo(settings(model=models[method], exclude_seen=True, warmup_ratio=0.5))
    assert max(logged(out, f"train/{GAP}")) < 1e-4
    assert read_json(out / "manifest.json")["results"]["engine_gap"] < 1e-4
    divergence = logged(out, "train/kl")
    assert divergence[0] == 0
    assert divergence[-1] > 0
    recommender = Recommender.from_pretrained(out, "cpu")
    assert recommender.spec == Recommender.from_pretrained(models[method], "cpu").spec
    for decode in ("beam", "list"):
        assert len(recommender.recommend(["i3", "i8"], k=5, decode=decode)) == 5
    _, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    # The best of the validated weights are kept, which may be those it started with.
    results = read_json(out / "manifest.json")["results"]
    measured = logged(out, "eval/NDCG@10")
    assert results["ndcg_start"] == pytest.approx(measured[0])
    assert results["ndcg_best"] == pytest.approx(max(measured))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"of the model it started from {results['ndcg_start']:.4f}" in card
    start, end = weights(models[method]), weights(out)
    same = all(torch.equal(start[name], end[name]) for name in start)
    assert same == (results["best_step"] == 0)
    if method == "ret":
        head = "retrieval.safetensors"
        one, other = load_file(models[method] / head), load_file(out / head)
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.long
def test_aliases_are_sampled_and_kept(
    settings: Settings, data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    paraphrases = tmp_path / "paraphrases.jsonl"
    items = Catalog.load(data).items[:40]
    lines = [{"item_id": one.item_id, "paraphrases": [f"Film {one.item_id}"]} for one in items]
    paraphrases.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    start = train_sft(
        SftSettings(
            model=str(tiny_folder), data=data, out=tmp_path / "start", tune="full",
            list_form="plain", wording="test-as-trained", list_length=3, max_history=4,
            batch_size=4, max_steps=4, learning_rate=1e-2, validate_every=0, device="cpu",
            paraphrases=paraphrases, paraphrases_in="targets", paraphrase_ratio=0.7,
        )
    )  # fmt: skip
    for name, rollout in (("sampled", {}), ("beams", {"rollout": "beam", "list_length": 1})):
        config = settings(model=start, exclude_seen=True, warmup_ratio=0.5, **rollout)
        out = train_grpo(replace(config, out=tmp_path / name))
        if name == "sampled":
            assert max(logged(out, f"train/{GAP}")) < 1e-4
        recommender = Recommender.from_pretrained(out, "cpu")
        assert recommender.aliases == Recommender.from_pretrained(start, "cpu").aliases
        assert len(recommender.aliases) == 40
        assert len({one.item_id for one in recommender.recommend(["i3"], k=49)}) == 49


@pytest.mark.parametrize("method", ["cgen", "token"])
def test_adapter_is_sampled_from_and_merges(
    method: str, settings: Settings, models: dict[str, Path], tmp_path: Path
) -> None:
    config = settings(
        model=models[method], tune="lora", lora_r=4, learning_rate=1e-2, validation_users=0,
        rollout="sample", reward=("ndcg", "format"), reward_weights=(1.0, 0.5), max_steps=4,
    )  # fmt: skip
    out = train_grpo(config)
    assert max(logged(out, f"train/{GAP}")) < 1e-4
    divergence = logged(out, "train/kl")
    assert divergence[0] == 0
    assert divergence[-1] > 0
    assert not (out / "model.safetensors").exists()
    merged = merge_run(MergeSettings(run=out, out=tmp_path / "merged"))
    adapted, plain = (Recommender.from_pretrained(f, "cpu") for f in (out, merged))
    found = [r.recommend(["i3", "i8"], k=9) for r in (adapted, plain)]
    assert [one.item_id for one in found[0]] == [one.item_id for one in found[1]]
    assert [one.score for one in found[0]] == pytest.approx([one.score for one in found[1]])
    before = Recommender.from_pretrained(models[method], "cpu").recommend(["i3", "i8"], k=9)
    assert [one.score for one in before] != pytest.approx([one.score for one in found[0]])


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_sampling_flags_beside_a_model_stop_no_training(
    tune: str, settings: Settings, models: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(models["cgen"], tmp_path / "model")
    flags = {"do_sample": False, "temperature": 0.7, "top_k": 20}
    settings_file = tmp_path / "model" / "generation_config.json"
    edit_json(settings_file, lambda config: config.update(flags))
    # The change is meant.
    manifest = tmp_path / "model" / "manifest.json"
    edit_json(manifest, lambda found: found.pop("checksum"))
    edit_json(manifest, lambda found: found["files"].pop("generation_config.json"))
    config = settings(
        model=tmp_path / "model", tune=tune, max_steps=1, checkpoint_every=1, validation_users=0
    )
    train_grpo(config)
    assert read_json(config.out / "manifest.json")["status"] == "finished"


@pytest.mark.long
def test_beams_and_the_variants_of_the_loss_run(settings: Settings, tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [
        {
            "rollout": "beam",
            "list_length": 1,
            "reward": ("rule", "ranking-aware"),
            "exclude_seen": True,
        },
        {"loss": "dapo", "epsilon_high": 0.28, "num_iterations": 2, "temperature": 1.5},
        {"importance": "sequence", "gradient_accumulation": 2, "beta": 0.0},
        {"loss": "dr_grpo", "scale_rewards": "none", "list_length": 0, "reward": ("diversity",)},
    ]
    for number, changes in enumerate(variants):
        out = train_grpo(settings(out=tmp_path / str(number), validation_users=0, **changes))
        assert all(np.isfinite(logged(out, "train/loss"))), changes
        assert (f"train/{GAP}" in _tags(out)) == (number >= 2)
        assert ("train/kl" in _tags(out)) == (number != 2)


def _tags(folder: Path) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags: list[str] = events.Tags()["scalars"]
    return tags


def _command(config: GrpoSettings) -> list[str]:
    given = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    program = (
        "import json, sys; from pathlib import Path\n"
        "from incatalog.grpo.settings import GrpoSettings; "
        "from incatalog.grpo.train_grpo import train_grpo; given = json.loads(sys.argv[1]); "
        "given |= {n: Path(given[n]) for n in ('model', 'data', 'out')}; "
        "given |= {n: tuple(given[n]) for n in ('reward', 'reward_weights')}; "
        "train_grpo(GrpoSettings(**given))"
    )
    return ["-c", program, json.dumps(given)]


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_bits(settings: Settings, tmp_path: Path) -> None:
    config = settings(max_steps=24, checkpoint_every=3, validation_users=2)
    whole = train_grpo(replace(config, out=tmp_path / "whole"))
    killed = replace(config, out=tmp_path / "killed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        [sys.executable, *_command(killed)], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((killed.out / "checkpoints").glob("checkpoint-*/complete.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed.out / "incatalog.json").exists()
    damaged = replace(killed, out=Path(shutil.copytree(killed.out, tmp_path / "damaged")))
    for optimiser in damaged.out.glob("checkpoints/checkpoint-*/optimizer.pt"):
        optimiser.write_bytes(optimiser.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"optimizer\.pt: not as it was written"):
        train_grpo(damaged)
    alone = read_json(damaged.out / "manifest.json")
    write_json(damaged.out / "manifest.json", alone | {"processes": 4})
    with pytest.raises(ArtifactError, match="begun by 4 processes and cannot be resumed by 1"):
        train_grpo(damaged)
    time.sleep(1.1)
    assert train_grpo(killed) == killed.out
    one, other = weights(whole), weights(killed.out)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert logged(killed.out, "train/reward") == logged(whole, "train/reward")
    assert (
        read_json(killed.out / "manifest.json")["results"]
        == read_json(whole / "manifest.json")["results"]
    )
    # Finished: nothing is done again.
    assert train_grpo(killed) == killed.out
    with pytest.raises(ArtifactError, match=r"other settings .beta"):
        train_grpo(replace(killed, beta=0.5))


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(settings: Settings, tmp_path: Path) -> None:
    one = train_grpo(settings(batch_size=8, out=tmp_path / "one", loss="dapo"))
    two = settings(batch_size=4, out=tmp_path / "two", loss="dapo")
    flag, program, given = _command(two)
    assert flag == "-c"
    script = tmp_path / "train.py"
    script.write_text(program, encoding="utf-8")
    launch = [
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0", str(script), given,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *launch],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("train/reward", "eval/NDCG@10"):
        assert logged(two.out, name) == pytest.approx(logged(one, name), rel=1e-4, abs=1e-6)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"reward": ()}, "--reward: names no reward"),
    ({"reward": ("luck",)}, "--reward luck: no such reward"),
    ({"reward": ("rule", "rule")}, "names one twice"),
    (
        {"reward": ("rule", "ranking")},
        "--reward rule ranking: .* RecLM-uni's is `rule ndcg` .* MiniOneRec's `rule ranking-aware`",
    ),
    ({"reward_weights": (1.0, 2.0)}, "--reward-weights: 2 of them for 1 rewards"),
    ({"reward_weights": (0.0,)}, "--reward-weights: all are 0"),
    ({"reward": ("teacher",)}, "--reward teacher: nobody to ask"),
    ({"teacher": "here"}, "--teacher: no reward asks it"),
    ({"reward": ("teacher",), "teacher": "nowhere"}, "--teacher nowhere: no such folder"),
    ({"rollout": "beam"}, "--rollout beam: finds single items, not lists of 3"),
    ({"max_samples": 10**9}, "--max-samples 1000000000: expected 1 to 10000000"),
    ({"num_generations": 1}, "--num-generations 1: expected at least 2"),
    ({"temperature": 0.0}, "--temperature 0.0: expected 0.001 to 1000"),
    ({"learning_rate": 0.0}, "--learning-rate 0.0: expected more than 0"),
    ({"warmup_ratio": 2.0}, "--warmup-ratio 2.0: expected 0 to 1"),
    ({"beta": -1.0}, "--beta -1.0: expected at least 0"),
    ({"num_iterations": 3}, "--checkpoint-every 2: not a multiple of --num-iterations 3"),
    ({"next_items": 0}, "--next-items 0: expected at least 1"),
    ({"data": Path("nowhere")}, "--data nowhere: no such folder"),
    ({"model": Path("nowhere")}, "--model nowhere: no such folder"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_settings_that_cannot_work_are_named(
    changes: dict[str, Any], message: str, settings: Settings
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(settings(**changes))


def test_named_errors_before_anything_is_loaded(
    settings: Settings, tmp_path: Path, tiny_folder: Path, models: dict[str, Path]
) -> None:
    # A model without control tokens was not trained by incatalog, and has no incatalog.json.
    with pytest.raises(BackboneError, match=r"holds no incatalog.json"):
        train_grpo(settings(model=tiny_folder))
    with pytest.raises(ConfigError, match="--device cuda:77: not usable"):
        train_grpo(settings(device="cuda:77"))
    with pytest.raises(ConfigError, match="--num-generations 3: does not divide the 8 answers"):
        train_grpo(settings(num_generations=3))
    with pytest.raises(ConfigError, match="--max-samples 1: fewer than the 2 prompts of a step"):
        train_grpo(settings(max_samples=1))
    catalog = Catalog.load(settings().data)
    with published(lambda _: np.arange(len(catalog)), catalog, [3, 1, 2]) as server:
        unknown = rf"--reward teacher: may ask about item .* server at {server.url} does not know"
        with pytest.raises(ConfigError, match=unknown):
            train_grpo(settings(reward=("teacher",), teacher=server.url))
    other = tmp_path / "other"
    Catalog.from_items([Item("x", "X"), Item("y", "Y")], "other").save(other)
    (other / "sequential.jsonl").write_text('{"u": ["x", "y", "x", "y"]}', encoding="utf-8")
    with pytest.raises((ConfigError, DataError), match="not the catalog that"):
        train_grpo(settings(data=other))
    adapter = train_grpo(settings(tune="lora", validation_users=0, max_steps=1))
    with pytest.raises(ConfigError, match="is an adapter; merge it first"):
        check_config(settings(model=adapter))


def _padded(rows: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [0] * (longest - len(row)) for row in rows]


@pytest.mark.parametrize("shuffled", [False, True])
def test_bandit_learns_what_is_rewarded_and_nothing_else(
    shuffled: bool, own_tiny_backbone: Backbone, catalog: Catalog, tmp_path: Path
) -> None:
    """One prompt, one rewarded item; with shuffled rewards every answer earns the same."""
    from trl import GRPOConfig

    from incatalog.grpo.grpo_trainer import ItemGrpoTrainer

    spec = ModelSpec(base="tiny", list_form="plain", wording="test-as-trained", list_length=1)
    recommender = Recommender(own_tiny_backbone, spec, catalog)
    prompt, rewarded = Prompt((3, 8), (21,)), 21
    random = np.random.default_rng(0)

    def reward(batch: Batch) -> list[float]:
        hits = np.array([float(rewarded in answer) for answer in batch.items])
        return (random.permutation(hits) if shuffled else hits).tolist()

    def probability() -> float:
        slot = recommender.slot(prompt.history, 1)
        [ranked] = recommender.beam.top_items([slot], None)
        found: Sequence[int] = ranked.rows.tolist()
        return float(np.exp(ranked.logprobs[found.index(rewarded)]))

    steps = 25
    trainer = ItemGrpoTrainer(
        own_tiny_backbone.model,
        GRPOConfig(
            output_dir=str(tmp_path), max_steps=steps, per_device_train_batch_size=32,
            num_generations=32, learning_rate=5e-3, lr_scheduler_type="constant", use_cpu=True,
            shuffle_dataset=False, report_to="none", save_strategy="no", disable_tqdm=True,
            gradient_checkpointing=False, loss_type="grpo", logging_steps=1000, bf16=False,
        ),
        beta=0.0, reference=None, prompts=[prompt] * steps,
        sampler=EngineSampler(
            recommender, list_length=1, rollout="sample", temperature=1.0, exclude_seen=False,
            num_generations=32,
        ),
        rewards={"reward": reward}, wanted=1, head=None, validation=None, compared=True, seed=0,
        processing_class=own_tiny_backbone.tokenizer,
    )  # fmt: skip
    assert probability() < 0.05
    trainer.train()
    asked = trainer.answer(["0"] * 4)
    mask = torch.tensor(_padded(asked["env_mask"]))
    logprobs, entropies, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, torch.zeros(4, 99, dtype=torch.int64), torch.ones(4, 99), mask.shape[1],
        compute_entropy=True,
    )  # fmt: skip
    # Forced tokens and those around the items contribute nothing at all.
    assert not logprobs[mask == 0].any()
    assert not entropies[mask == 0].any()
    assert (logprobs[mask == 1] < 0).all()
    if shuffled:
        assert probability() < 0.3
    else:
        assert probability() > 0.9
