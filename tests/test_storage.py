from __future__ import annotations

import errno
import os
import resource
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from incatalog.artifacts import atomic_folder, atomic_path
from incatalog.errors import StorageError
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.storage import follow_umask, storage_fault, writing


def write_text(path: Path) -> None:
    path.write_text("x" * 400_000)


def write_array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.ones(50_000))


def write_table(path: Path) -> None:
    pl.DataFrame({"value": np.random.default_rng(0).random(50_000)}).write_parquet(path)


def write_tensors(path: Path) -> None:
    save_file({"weight": torch.ones(100_000)}, path)


def write_archive(path: Path) -> None:
    torch.save(torch.ones(100_000), path)


def write_picture(path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8))
    figure.add_subplot().imshow(np.random.default_rng(0).random((200, 200)))
    figure.savefig(path, format="png")


def write_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("create table t (x)")
    database.executemany("insert into t values (?)", [("x" * 1000,)] * 400)
    database.commit()


def write_model(path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    path.unlink(missing_ok=True)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=5_000, num_hidden_layers=1, **sizes)
    ).save_pretrained(path)  # fmt: skip


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models

    words = {f"word{number}": number for number in range(20_000)}
    Tokenizer(models.WordLevel(words, unk_token="word0")).save(str(path))


WRITERS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("write_"): function
    for name, function in list(globals().items())
    if name.startswith("write_")
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 20,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("small_files")
def test_a_limit_of_file_sizes_is_one_line_with_the_file(tmp_path: Path, name: str) -> None:
    target = tmp_path / "deep" / "result"
    with pytest.raises(StorageError) as caught, atomic_path(target) as partial:
        WRITERS[name](partial)
    message = str(caught.value)
    assert message.startswith(f"{target}: cannot be written (")
    assert "limit of file sizes" in message
    assert "\n" not in message
    assert not target.exists()
    left = [path for path in target.parent.iterdir() if path.is_file()]
    assert [path for path in left if name != "database" or "journal" not in path.name] == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_the_old_file_stays(small_disk: Path, name: str) -> None:
    target = small_disk / "result"
    target.write_text("old")
    with pytest.raises(StorageError) as caught, atomic_path(target) as partial:
        WRITERS[name](partial)
    message = str(caught.value)
    assert message.startswith(f"{target}: cannot be written (")
    assert "then repeat the command" in message
    assert target.read_text() == "old"


def test_a_folder_without_room_leaves_nothing(small_disk: Path) -> None:
    target = small_disk / "folder"

    def write() -> None:
        with atomic_folder(target) as partial:
            (partial / "first").write_text("fits")
            write_text(partial / "second")

    with pytest.raises(StorageError, match="folder: cannot be written"):
        write()
    assert list(small_disk.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (
        ValueError("bad"), KeyError("x"), OSError(errno.ENOENT, "No such file", "somewhere"),
        PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "input" / "file")),
    ):  # fmt: skip
        with pytest.raises(type(error)) as caught, writing(tmp_path / "out" / "file"):
            raise error
        assert caught.value is error


def test_the_file_that_the_error_names_is_named_where_it_is_ours(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def told(path: Path) -> str | None:
        return storage_fault(OSError(errno.ENOSPC, "No space left on device", str(path)), out)

    assert str(told(out / "a" / "b")).startswith(f"{out / 'a' / 'b'}: ")
    assert str(told(tmp_path / ".out.12ab.partial" / "b")).startswith(f"{out}: ")
    assert told(tmp_path / "other") is None


def test_a_reason_deep_inside_is_found(tmp_path: Path) -> None:
    try:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError as error:
            raise RuntimeError("the library failed") from error
    except RuntimeError as error:
        found = storage_fault(error, tmp_path)
    assert found == (
        f"{tmp_path}: cannot be written (Disk quota exceeded); free space there, then repeat the "
        "command"
    )


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750),
                                                       (0o077, 0o600, 0o700)])  # fmt: skip
def test_what_libraries_write_follows_the_umask(
    tmp_path: Path, umask: int, file: int, folder: int
) -> None:
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "one.safetensors") as partial:
            write_tensors(partial)
        with atomic_folder(tmp_path / "folder") as partial:
            write_tensors(partial / "two.safetensors")
            (partial / "sub").mkdir()
            write_tensors(partial / "sub" / "three.safetensors")
        (tmp_path / "plain").mkdir()
        write_tensors(tmp_path / "plain" / "four.safetensors")
        follow_umask(tmp_path / "plain")
    finally:
        os.umask(before)

    def mode(path: Path) -> Any:
        return stat.S_IMODE(path.stat().st_mode)

    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) == 4
    assert {mode(path) for path in found} == {file}
    assert {mode(tmp_path / name) for name in ("folder", "folder/sub", "plain")} == {folder}


def test_a_saved_model_can_be_read_by_others(tmp_path: Path, tiny_backbone: Backbone) -> None:
    before = os.umask(0o022)
    try:
        save_model(tmp_path / "model", tiny_backbone, ModelSpec(base="tiny"))
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert found.pop("model") == 0o755
    assert "model.safetensors" in found
    assert set(found.values()) == {0o644}
