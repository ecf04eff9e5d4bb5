"""What a service takes: each test in a process of its own, as the settings are of the process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

MEMORY = """
from pathlib import Path
def used():
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024
"""


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is asked")
def test_what_threads_have_freed_is_given_back() -> None:
    """Blocks of all sizes, as passes of many rows take them and free them."""
    said = run(
        """
        import random, threading
        import numpy as np
        from incatalog.serving.memory import give_memory_back
        give_memory_back()
        before = used()

        def work(seed):
            numbers = random.Random(seed)
            held = []
            for _ in range(400):
                held.append(np.ones(numbers.randrange(1 << 10, 1 << 20)))
                if len(held) > 20:
                    held.pop(numbers.randrange(20))
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(used() - before)
        """
    )
    assert float(said) < 25


@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn, to be left out"
)
def test_packages_the_service_has_no_use_for_are_not_imported() -> None:
    said = run(
        """
        import sys
        from incatalog.serving.memory import import_lean
        import_lean()
        from incatalog.recommender.recommender import Recommender
        import incatalog.serving.service
        from transformers.utils import is_sklearn_available
        heavy = {"sklearn", "scipy.sparse", "pandas"}
        print(sorted(heavy & set(sys.modules)), is_sklearn_available())
        """
    )
    assert said.split() == ["[]", "True"]


@pytest.mark.long
def test_a_service_finds_on_the_disk_what_another_process_has_compiled(tmp_path: Path) -> None:
    said = run(
        """
        from incatalog.constraint.compiling import compile_kernels
        from incatalog.serving.memory import compiled_elsewhere
        with compiled_elsewhere():
            pass
        compile_kernels()
        from incatalog.constraint import kernels, masses
        steps = (kernels.enter, kernels.allow, kernels.go_on, kernels.refused, masses.log_parts)
        for step in steps:
            stats = step.stats
            print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert said.split() == ["1", "0"] * 5
