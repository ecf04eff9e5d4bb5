from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.errors import ArtifactError, ConfigError
from incatalog.evaluation.batchlog import BatchLog, Shards, in_batches
from incatalog.journal import Journal

ALONE = Shards()


def test_an_interrupted_job_does_only_what_is_left(tmp_path: Path) -> None:
    done: list[list[int]] = []

    def work(positions: list[int]) -> list[str]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(positions)
        return [f"é{position}" for position in positions]

    with pytest.raises(KeyboardInterrupt):
        in_batches(range(7), 3, work, BatchLog(tmp_path, ALONE), "work")
    assert done == [[0, 1, 2], [3, 4, 5]]
    # A kill in the middle of a line: its batch is done again, whole.
    log = tmp_path / "batches-0.jsonl"
    log.write_bytes(log.read_bytes()[:-5])
    done.clear()
    log_of_two = BatchLog(tmp_path, ALONE)
    assert in_batches(range(7), 3, work, log_of_two, "work") == [f"é{n}" for n in range(7)]
    assert done == [[3, 4, 5], [6]]
    log_of_two.remove()
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 4))
def test_results_do_not_depend_on_how_work_is_shared(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, shards: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    batches = [list(range(s, min(s + size, count))) for s in range(0, count, size)]
    for index in range(1, shards):
        log = BatchLog(folder, Shards(index, shards))
        for batch in batches[index::shards]:
            log.append(batch, [n * n for n in batch])
    own: list[list[int]] = []

    def work(positions: list[int]) -> list[int]:
        own.append(positions)
        return [n * n for n in positions]

    found = in_batches(range(count), size, work, BatchLog(folder, ALONE), "work")
    assert found == [n * n for n in range(count)]
    assert own == batches[::shards]


def test_files_that_another_command_deletes_are_missed(tmp_path: Path) -> None:
    def work(batch: list[int]) -> list[int]:
        if 4 in batch:  # the other command is done
            BatchLog(tmp_path, ALONE).remove()
        return batch

    with pytest.raises(ArtifactError, match=r"4 of 6 .* another --out"):
        in_batches(range(6), 2, work, BatchLog(tmp_path, ALONE), "work")


def test_a_record_of_something_else_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "batches-0.jsonl")
    journal.append({"positions": [0], "results": [1]}, {"positions": [1], "results": []})
    with pytest.raises(ArtifactError, match=r"batches-0\.jsonl:2: not the results"):
        BatchLog(tmp_path, ALONE).results()


def test_processes_without_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A size without ranks and an address: what a launcher would have set is missing.
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE 2: set without RANK and MASTER_ADDR"):
        Shards.current("cpu")
