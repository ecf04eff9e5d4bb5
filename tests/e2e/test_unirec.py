"""UniRec itself trains on our export, and what it trained ranks here as it ranks there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from incatalog.artifacts import read_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_validation import VALIDATION_FILE

# The published training, for one epoch: UniRec validates before an epoch and keeps the best that it
# validated, so that the weights of its last epoch, here the second, are never kept.
_TRAINING = """
--config_dir=unirec/config --model=SASRec --dataloader=SeqRecDataset --loss_type=fullsoftmax
--embedding_size=128 --hidden_size=128 --max_seq_len=10 --history_mask_mode=autoregressive
--user_history_filename=user_history --user_history_file_format=user-item_seq
--valid_protocol=one_vs_all --test_protocol=one_vs_all --n_sample_neg_train=0
--key_metric=ndcg@10 --metrics=['hit@10;20','ndcg@10;20'] --learning_rate=0.001 --batch_size=1024
--epochs=2 --early_stop=10 --shuffle_train=1 --scheduler_factor=0.5
--grad_clip_value=-1 --num_workers=0 --use_wandb=0 --verbose=2 --gpu_id=-1
""".split()  # noqa: SIM905 - flags as they are typed
_TOP = 10


@pytest.fixture(scope="module")
def unirec() -> Path:
    """What `deploy/unirec.sh` made of a checkout."""
    folder = os.environ.get("INCATALOG_UNIREC", "")
    if not folder:
        pytest.skip(
            "no checkout of UniRec: git clone https://github.com/microsoft/UniRec, then "
            "make test-unirec UNIREC=UniRec"
        )
    return Path(folder).resolve()


def _run_unirec(unirec: Path, module: str, *flags: object) -> None:
    # Its checkpoints hold settings and metrics beside tensors, so that it must unpickle them.
    allowed = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "WANDB_MODE": "disabled"}
    there = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [unirec / "venv/bin/python", "-m", module, *flags]
    subprocess.run(
        list(map(str, command)),
        cwd=unirec / "UniRec",
        env=there | allowed,
        check=True,
        timeout=3600,
    )


def _incatalog(*arguments: object) -> None:
    command = [sys.executable, "-m", "incatalog.cli", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=600)


@contextmanager
def _told(what: str) -> Iterator[None]:
    start, before = time.monotonic(), os.times()
    yield
    after = os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    sys.stderr.write(f"{what}: {time.monotonic() - start:.0f} s, {used:.0f} s of CPU time\n")


def test_the_script_leaves_folders_alone_that_it_has_not_made(tmp_path: Path) -> None:
    script, checkout = Path(__file__).parents[2] / "deploy/unirec.sh", tmp_path / "UniRec"
    trainer, mine = checkout / "unirec/facility/trainer.py", tmp_path / "mine"
    for file in (trainer, mine / "thesis.txt"):
        file.parent.mkdir(parents=True)
        file.write_text("precious")
    for where in (mine, checkout):
        run = subprocess.run([script, checkout, where], capture_output=True, text=True, timeout=20)
        assert run.returncode == 2
        assert f"{where}: is there already, and not made by" in run.stderr
    wrong = subprocess.run([script, mine, tmp_path / "new"], capture_output=True, text=True)
    assert wrong.stderr.startswith(f"usage: {script} CHECKOUT FOLDER")
    assert (mine / "thesis.txt").read_text() == trainer.read_text() == "precious"


@pytest.mark.unirec
@pytest.mark.timeout(7200)
def test_what_unirec_trains_on_our_export_ranks_here_as_it_does_there(
    unirec: Path, ml100k_source: Path, tmp_path: Path
) -> None:
    data, export, output = tmp_path / "data", tmp_path / "movielens", tmp_path / "output"
    teacher, ranked = tmp_path / "teacher", tmp_path / "ranked.csv"
    _incatalog("data", "movielens", "--source", ml100k_source, "--out", data)
    _incatalog("data", "to-unirec", data, "--out", export)
    shutil.copy(export / "movielens.yaml", unirec / "UniRec/unirec/config/dataset")
    with _told("two epochs in UniRec"):
        where = [f"--dataset_path={export}", f"--output_path={output}", "--dataset=movielens"]
        _run_unirec(unirec, "unirec.main.main", *where, *_TRAINING)
    (weights,) = output.glob("checkpoint_*/*.pth")
    flags = ["--data", data, "--weights", weights, "--out", teacher, "--exclude-seen"]
    with _told("import"):
        _incatalog("teacher", "import-unirec", *flags)

    catalog = Catalog.load(data)
    split = leave_one_out(Histories.load(data, catalog))
    (export / "users.txt").write_text("".join(f"{user + 1}\n" for user in range(len(split))))
    with _told("UniRec's lists"):
        _run_unirec(
            unirec,
            "unirec.main.reco_topk",
            f"--dataset_path={export}",
            "--dataset_name=users.txt",
            f"--model_file={weights}",
            "--user_history_filename=user_history",
            "--user_history_file_format=user-item_seq",
            f"--output_path={ranked}",
            f"--topk={_TOP}",
        )
    theirs = np.loadtxt(ranked, delimiter=",", dtype=np.int64) - 1
    histories = [split.test(user).history for user in range(len(split))]
    mine = load_teacher(teacher, catalog, "cpu").top_k(histories, _TOP)
    same = int((mine == theirs).all(axis=1).sum())
    sys.stderr.write(f"top {_TOP}: equal for {same} of {len(split)} users\n")
    np.testing.assert_array_equal(mine, theirs)
    # It has learned, so that the lists are not those of chance.
    found = read_json(teacher / VALIDATION_FILE)["metrics"]["HR@10"]
    assert found > 3 * _TOP / len(catalog)
    assert len(np.unique(mine)) > 2 * _TOP
