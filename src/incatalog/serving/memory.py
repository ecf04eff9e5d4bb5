"""A process that serves for months: it takes little memory at its start and gives back what it can.

These settings hold for the whole process, so only `incatalog serve` makes them, at its start.
"""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
from collections.abc import Iterator

# Of glibc's malloc.h. Once one is set, they no longer grow with what the process has freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 1 << 20
_LEFT_OUT = ("is_scipy_available", "is_sklearn_available")


def give_memory_back() -> None:
    """Makes glibc give large freed blocks back to the system, and threads share arenas.

    By default the process keeps the memory of its busiest second, for each of its threads.
    """
    if sys.platform == "linux" and hasattr(glibc := ctypes.CDLL(None), "mallopt"):
        glibc.mallopt(_MMAP_THRESHOLD, _LARGE)
        glibc.mallopt(_TRIM_THRESHOLD, _LARGE)
        glibc.mallopt(_ARENA_MAX, 2)


def import_lean() -> None:
    """Imports transformers as if scikit-learn and scipy were not installed.

    It would import them, and with them pandas and pyarrow, for what the service does not use.
    """
    from transformers import utils

    installed = {name: getattr(utils, name) for name in _LEFT_OUT}
    try:
        for name in _LEFT_OUT:
            setattr(utils, name, lambda: False)
        from transformers import modeling_utils  # noqa: F401
        from transformers.generation import candidate_generator  # noqa: F401
    finally:
        for name, function in installed.items():
            setattr(utils, name, function)


@contextlib.contextmanager
def compiled_elsewhere() -> Iterator[None]:
    """Compiles the loops of decoding during the block, in another process.

    This process then finds them on the disk: the compiler's memory would stay taken here, and the
    first question would wait. If the disk cannot be written to, they are compiled at first use.
    """
    code = "from incatalog.constraint.compiling import compile_kernels; compile_kernels()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as compiling:
        try:
            yield
        except BaseException:
            compiling.kill()
            raise
