from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from incatalog.batch.claims import Claims

LONG = 3600.0


def holders(folder: Path) -> dict[str, str]:
    """Who holds what, by the token that the claim names."""
    names = [path for path in (folder / ".claims").iterdir() if not path.name.startswith(".")]
    return {path.name: json.loads(path.read_text("utf-8"))["token"] for path in names}


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    one, other = Claims(tmp_path, LONG), Claims(tmp_path, LONG)
    claim = one.take("a")
    assert claim is not None
    assert claim.is_held
    assert other.take("a") is None
    assert one.take("a") is None
    second = other.take("b")
    assert second is not None
    assert holders(tmp_path) == {"a": one.token, "b": other.token}
    claim.release()
    assert not claim.is_held
    third = other.take("a")
    assert third is not None
    assert holders(tmp_path) == {"a": other.token, "b": other.token}
    for left in (second, third):
        left.release()
    assert holders(tmp_path) == {}
    one.clear()
    assert list(tmp_path.iterdir()) == []


def test_many_that_try_at_once_have_one_holder(tmp_path: Path) -> None:
    found, gate = [], threading.Barrier(8)

    def try_once() -> None:
        claims = Claims(tmp_path, LONG)
        gate.wait()
        if (claim := claims.take("a")) is not None:
            found.append(claim)

    threads = [threading.Thread(target=try_once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    found[0].release()


def of_another_host(folder: Path, lease: float, age: float) -> Path:
    """The claim of a holder elsewhere, who gave the last sign of life some seconds ago."""
    path = folder / ".claims" / "a"
    path.parent.mkdir(exist_ok=True)
    told = {"token": "x", "lease": lease, "home": "elsewhere", "process": 1, "started": "1"}
    path.write_text(json.dumps(told), "utf-8")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize(("lease", "age", "over"), [(60, 50, False), (60, 70, True), (5, 9, True)])
def test_another_host_is_given_the_lease_that_it_named(
    tmp_path: Path, lease: float, age: float, over: bool
) -> None:
    of_another_host(tmp_path, lease, age)
    claims = Claims(tmp_path, LONG)
    claim = claims.take("a")
    assert (claim is not None) == over
    assert holders(tmp_path) == {"a": claims.token if over else "x"}
    if claim is not None:
        claim.release()


def test_a_claim_that_is_being_written_is_not_taken(tmp_path: Path) -> None:
    path = of_another_host(tmp_path, LONG, 0)
    path.write_text("")
    assert Claims(tmp_path, LONG).take("a") is None
    assert path.exists()


@pytest.mark.long
def test_signs_of_life_keep_a_claim_beyond_its_lease(tmp_path: Path) -> None:
    one, other = Claims(tmp_path, 1.0), Claims(tmp_path, 1.0)
    claim = one.take("a")
    assert claim is not None
    for _ in range(4):
        time.sleep(0.5)
        assert other.take("a") is None
    assert claim.is_held
    claim.release()


def test_a_slow_holder_does_not_touch_what_its_successor_has(tmp_path: Path) -> None:
    slow, successor = Claims(tmp_path, LONG), Claims(tmp_path, LONG)
    claim = slow.take("a")
    assert claim is not None
    # It slept for two hours, as far as anybody sees.
    then = time.time() - 2 * LONG
    os.utime(tmp_path / ".claims" / "a", (then, then))
    second = successor.take("a")
    assert second is not None
    assert not claim.is_held
    claim.release()
    assert second.is_held
    assert holders(tmp_path) == {"a": successor.token}
    second.release()


def test_a_killed_process_of_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom incatalog.batch.claims import Claims\n"
        f"claim = Claims(Path({str(tmp_path)!r}), {LONG}).take('a')\nprint('held', flush=True)\n"
        "time.sleep(600)\n"
    )
    claims = Claims(tmp_path, LONG)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert claims.take("a") is None
        process.kill()
        # Nobody has asked yet how it ended, so its number is not free again.
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        claim = claims.take("a")
    assert claim is not None
    claim.release()


def test_a_process_of_the_same_number_is_another_one(tmp_path: Path) -> None:
    claims = Claims(tmp_path, LONG)
    claim = claims.take("a")
    assert claim is not None
    path = tmp_path / ".claims" / "a"
    told = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(told | {"started": "1"}), "utf-8")
    second = Claims(tmp_path, LONG).take("a")
    assert second is not None
    for one in (claim, second):
        one.release()
