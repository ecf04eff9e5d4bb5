from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from damage import flip_bit
from incatalog.artifacts import read_json
from incatalog.codes.assign import assign_items
from incatalog.codes.quantize import quantize_items
from incatalog.codes.semantic_ids import SemanticIds
from incatalog.codes.settings import AssignSettings, QuantizeSettings
from incatalog.data.catalog import Catalog, Item
from incatalog.data.vectors import load_vectors, save_vectors
from incatalog.embedding.embed import embed_items
from incatalog.embedding.encoders import load_encoder
from incatalog.embedding.settings import EmbedSettings
from incatalog.errors import ArtifactError, ConfigError, VectorError
from incatalog.items.texts import item_texts, text_wording_named


@pytest.fixture
def config(tmp_path: Path, data: Path, decoder_folder: Path) -> EmbedSettings:
    return EmbedSettings(
        data=data, out=tmp_path / "run", encoder="causal", model=str(decoder_folder),
        dataset="films", batch_size=4, device="cpu",
    )  # fmt: skip


def test_rows_follow_the_catalog_whatever_the_batch(config: EmbedSettings, tmp_path: Path) -> None:
    path = embed_items(config)
    assert path == config.out / f"films.emb-{Path(config.model).name}-td.npy"
    catalog = Catalog.load(config.data)
    encoder = load_encoder("causal", config.model, torch.device("cpu"), max_tokens=512)
    texts = item_texts(catalog, text_wording_named("td"))
    expected = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(load_vectors(path, len(catalog)), expected, atol=1e-5)
    for size in (1, 50):
        other = embed_items(replace(config, batch_size=size, out=tmp_path / str(size)))
        np.testing.assert_allclose(load_vectors(other), expected, atol=1e-5)
    assert {found.name for found in config.out.iterdir()} == {"manifest.json", path.name}
    results = read_json(config.out / "manifest.json")["results"]
    assert (results["items"], results["hidden"], results["cut"]) == (50, 32, 0)


def test_finished_run_is_left_alone(config: EmbedSettings) -> None:
    path = embed_items(config)
    stamp = path.stat().st_mtime_ns
    assert embed_items(config) == path
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(ArtifactError, match="max_tokens"):
        embed_items(replace(config, max_tokens=3))


def test_cut_texts_are_counted_and_said(
    config: EmbedSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    embed_items(replace(config, max_tokens=3))
    results = read_json(config.out / "manifest.json")["results"]
    assert results["cut"] > 0
    said = capsys.readouterr().err
    assert f"notice: {results['cut']} of 50 texts are longer than 3 tokens" in said


def test_half_precision_is_close_and_still_float32(config: EmbedSettings, tmp_path: Path) -> None:
    whole = load_vectors(embed_items(config))
    half = load_vectors(embed_items(replace(config, dtype="bfloat16", out=tmp_path / "half")))
    assert half.dtype == np.float32
    assert not np.array_equal(half, whole)
    np.testing.assert_allclose(half, whole, atol=0.05)


@pytest.mark.long
def test_killed_run_ends_with_the_same_bits(config: EmbedSettings, tmp_path: Path) -> None:
    # Long texts, so that there is time to kill it.
    slow = tmp_path / "slow"
    titles = [item.title for item in Catalog.load(config.data).items]
    Catalog.from_items(
        Item(f"i{row}", title, f"{title} " * 40) for row, title in enumerate(titles * 8)
    ).save(slow)
    config = replace(config, data=slow, batch_size=1)
    flags = []
    for field in fields(config):
        if (value := getattr(config, field.name)) != field.default:
            flags += [f"--{field.name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(
        [sys.executable, "-m", "incatalog.cli", "items", "embed", *flags],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    shards = config.out / "shards"
    deadline = time.monotonic() + 60
    while len(list(shards.glob("0*.npy"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(list(shards.glob("0*.npy"))) < 25
    assert read_json(config.out / "manifest.json")["status"] == "running"

    found = embed_items(config)
    whole = embed_items(replace(config, out=tmp_path / "whole"))
    assert found.read_bytes() == whole.read_bytes()
    assert not shards.exists()
    assert list(config.out.glob(".*")) == []


def test_model_that_gives_no_number_names_the_item(
    config: EmbedSettings, tmp_path: Path, decoder_folder: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in decoder_folder.iterdir():
        if file.name != "model.safetensors":
            (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(decoder_folder / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(VectorError, match=r"item 'i\d+': the model gives NaN or infinity"):
        embed_items(replace(config, model=str(broken)))


def test_wrong_settings_are_one_line(config: EmbedSettings) -> None:
    for changes, said in (
        ({"max_tokens": 0}, "--max-tokens 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"dataset": "a/b"}, "--dataset a/b"),
        ({"source": "both"}, "--source both: names no teacher; add --teacher RUN"),
        ({"teacher": ("run",)}, "--teacher run: a text knows no teacher; add --source both"),
        ({"source": "teacher", "teacher": ("a", "a")}, "--teacher a a: names one twice"),
        ({"source": "teacher", "teacher": ("lost",)}, "--teacher lost: no teacher there; fit one"),
        ({"like": "run"}, "--encoder causal: --like decides that itself; leave it out"),
        ({"svd_dim": 0}, "--svd-dim 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            embed_items(replace(config, **changes))  # type: ignore[arg-type]
    assert not config.out.exists()


def test_a_flipped_bit_of_a_vector_is_named(config: EmbedSettings) -> None:
    path = embed_items(config)
    flip_bit(path, path.stat().st_size - 3)
    with pytest.raises(ArtifactError, match=f"{path.name}: is not as it was written"):
        load_vectors(path)


@pytest.mark.long
def test_a_disk_without_room_for_all_vectors_is_one_line(small_disk: Path, tmp_path: Path) -> None:
    save_vectors(tmp_path / "000000.npy", np.ones((1000, 64), dtype=np.float32))
    program = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from incatalog.embedding.text_vectors import _join\n"
        "from incatalog.errors import StorageError\n"
        "try: _join(Path(sys.argv[1]), Path(sys.argv[2]), [np.arange(1000)])\n"
        "except StorageError as error: print(error)"
    )
    target = small_disk / "films.npy"
    done = subprocess.run(
        [sys.executable, "-c", program, str(target), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{target}: cannot be written (No space left on device); free space there, then repeat "
        "the command\n"
    )
    assert list(small_disk.iterdir()) == []


def test_text_and_teachers_stand_side_by_side(
    config: EmbedSettings, taken: Path, network: Path, tmp_path: Path
) -> None:
    settings = replace(
        config, data=taken, source="both", wording="t", teacher=(str(network),), dataset=""
    )
    path = embed_items(settings)
    name = f"taken.emb-{Path(config.model).name}-t-teacher.npy"
    assert path == config.out / name
    text = embed_items(replace(settings, source="text", teacher=(), out=tmp_path / "text"))
    alone = embed_items(replace(settings, source="teacher", out=tmp_path / "teacher"))
    found, given = load_vectors(path, 50), np.array(load_vectors(text))
    moved = given - given.mean(axis=0)
    np.testing.assert_allclose(
        found[:, :32], moved / np.linalg.norm(moved, axis=1).mean(), atol=1e-5
    )
    assert np.array_equal(found[:, 32:], load_vectors(alone))
    cold = np.flatnonzero(~found[:, 32:].any(axis=1))
    assert set(range(40, 50)) <= set(cold.tolist())
    assert found[cold][:, :32].any(axis=1).all()
    kept = {"manifest.json", name, "blocks.json", "metas.jsonl", "category.jsonl"}
    assert {entry.name for entry in config.out.iterdir()} == kept
    results = read_json(config.out / "manifest.json")["results"]
    (told,) = results["teachers"]
    assert (told["kind"], told["run"], told["width"]) == ("sasrec", str(network), 8)
    assert results["hidden"] == 40


def test_another_teacher_is_another_run(config: EmbedSettings, taken: Path, network: Path) -> None:
    settings = replace(config, data=taken, source="teacher", teacher=(str(network),))
    path = embed_items(settings)
    stamp = path.stat().st_mtime_ns
    assert embed_items(settings) == path
    assert path.stat().st_mtime_ns == stamp
    weights = load_file(network / "teacher.safetensors")
    weights["item_embedding.weight"][3, 0] += 1
    save_file(weights, network / "teacher.safetensors")
    with pytest.raises(ArtifactError, match="contents of teacher"):
        embed_items(settings)


def test_joined_vectors_are_quantised_and_assigned(
    config: EmbedSettings, taken: Path, network: Path, tmp_path: Path
) -> None:
    settings = replace(config, data=taken, source="both", teacher=(str(network),), wording="t")
    vectors = embed_items(settings)
    codes = quantize_items(
        QuantizeSettings(
            vectors=vectors, out=tmp_path / "codebooks", method="rqkmeans", codebooks=(8, 8, 8, 32),
            device="cpu",
        )
    )  # fmt: skip
    out = assign_items(
        AssignSettings(
            data=taken, out=tmp_path / "ids", model=str(codes), vectors=vectors, dataset="films",
            device="cpu",
        )
    )  # fmt: skip
    ids = SemanticIds.load(out, "films", Catalog.load(taken))
    assert ids.collisions() == 0
