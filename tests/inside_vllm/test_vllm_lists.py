"""`incatalog batch --engine vllm` gives everybody the list that our engine gives."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from incatalog.cli import main
from incatalog.data.catalog import Catalog, Item
from incatalog.model.backbone import create_tiny
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.model.tiny import TinyConfig
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.teacher_folder import save_teacher
from vllm_environment import vllm_python, vllm_variables

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """A random model over forty films, of a width that vLLM knows on a CPU, and its guide."""
    sizes = TinyConfig(vocab_size=512, hidden=64, inner=64, layers=2, heads=2, seed=0)
    backbone = create_tiny(titles, sizes)
    network: Any = backbone.model
    torch.manual_seed(1)
    with torch.no_grad():
        network.lm_head.weight = torch.nn.Parameter(torch.randn_like(network.lm_head.weight))
    folder = tmp_path_factory.mktemp("batch") / "films"
    folder.mkdir()
    save_model(folder, backbone, ModelSpec(base="tiny"))
    catalog = Catalog.from_items([Item(f"i{n}", title) for n, title in enumerate(titles[:40])])
    catalog.save(folder)
    save_teacher(folder.parent / "guide", Popularity(range(40), catalog), catalog)
    rows = [
        {
            "user_id": number,
            "history": [f"i{(7 * number + step) % 40}" for step in range(number % 6)],
            "exclude": [f"i{at}" for at in range(40 if number == 5 else 3 * (number % 3))],
            "boost": [{"item_id": "i9", "factor": 50.0}] if number % 4 == 0 else None,
        }
        for number in range(24)
    ]
    pl.DataFrame(rows).write_parquet(folder.parent / "users.parquet", row_group_size=10)
    return folder


@pytest.mark.parametrize("guide", ["off", "guide"])
def test_everybody_gets_the_list_of_our_engine(films: Path, tmp_path: Path, guide: str) -> None:
    named = guide if guide == "off" else films.parent / guide
    flags = ["--model", films, "--histories", films.parent / "users.parquet", "--k", 5]
    flags += ["--guide", named, "--decode", "greedy", "--batch-size", 8]
    words = ["batch", *map(str, flags), "--out"]
    assert main([*words, str(tmp_path / "ours"), "--device", "cpu"]) == 0
    more = [tmp_path / "theirs", "--engine", "vllm", "--vllm", "enforce-eager=true"]
    done = subprocess.run(
        [vllm_python(), "-m", "incatalog.cli", *words, *more],
        env=os.environ | vllm_variables(tmp_path / "plugin"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ours, theirs = (
        pl.read_parquet(tmp_path / name / "shards" / "*.parquet") for name in ("ours", "theirs")
    )
    assert ours["items"].list.len().to_list() == [0 if n == 5 else 5 for n in range(24)]
    assert theirs.drop("scores").equals(ours.drop("scores"))
    for one, other in zip(ours["scores"], theirs["scores"], strict=True):
        assert other.to_list() == pytest.approx(one.to_list(), rel=1e-3)
