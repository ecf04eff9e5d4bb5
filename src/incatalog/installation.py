"""What is installed beside the package: versions, extras, and a torchvision that breaks imports."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
from collections.abc import Iterator

from incatalog.errors import InstallationError, MissingExtraError, first_line, packages_in

_PACKAGE = "incatalog"
_TORCHVISION = "torchvision"
# What `--version` tells where it is installed: what results and errors depend on.
_TOLD = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "accelerate",
    "peft",
    "trl",
    "sentence-transformers",
    "jsonargparse",
    "numpy",
    "numba",
    "polars",
    "fastapi",
    "vllm",
)
# Modules that are not called as what is installed.
_DISTRIBUTIONS = {
    "faiss": "faiss-cpu",
    "opentelemetry": "opentelemetry-api",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def version_lines() -> list[str]:
    """The version of the package, and below it those of Python, the system and what it uses."""
    lines = [
        f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}",
        f"python {platform.python_version()} ({platform.system()} {platform.machine()})",
    ]
    for name in _TOLD:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f"{name} {importlib.metadata.version(name)}")
    return lines


def distribution(module: str) -> str:
    """The name by which a module is installed."""
    return _DISTRIBUTIONS.get(module, _canonical(module))


def missing(module: str, extra: str = "") -> MissingExtraError:
    """The error of a module that is not installed, with what brings it.

    Args:
        module: The module that was asked for.
        extra: The extra of the command; another one is named where that does not bring it.
    """
    package = module.partition(".")[0]
    brought = _brought(distribution(package))
    if brought is None:
        what = package
    elif "" in brought or not (extra or brought):
        what = _PACKAGE
    elif extra and (not brought or brought & set(extra.split(","))):
        what = f"{_PACKAGE}[{extra}]"
    else:
        what = f"{_PACKAGE}[{sorted(brought, key=len)[0]}]"
    return MissingExtraError(f"{package} is not installed; run: pip install '{what}'")


@contextlib.contextmanager
def telling_broken() -> Iterator[None]:
    """Within it, an import that a broken torchvision fails is told as one line that names it.

    Transformers imports torchvision wherever there is one, and hides why that failed.

    Raises:
        InstallationError: It is made for another torch, such as a build for another device.
    """
    try:
        yield
    except Exception as error:
        for cause in _chain(error):
            if _TORCHVISION in packages_in(cause):
                raise InstallationError(_broken_torchvision(cause)) from error
        raise


def _broken_torchvision(cause: BaseException) -> str:
    found, wanted = "", ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found = f" {importlib.metadata.version(_TORCHVISION)}"
        torch = importlib.metadata.version("torch")
        for line in importlib.metadata.requires(_TORCHVISION) or ():
            if pinned := re.match(r"torch\s*\(?==\s*([\w.+!-]+)", line):
                wanted = f"made for torch {pinned[1]}, found {torch}; "
    told = first_line(cause) if isinstance(cause, Exception) else type(cause).__name__
    return (
        f"torchvision{found} cannot be imported ({told}); {wanted}nothing here needs it: "
        "pip uninstall torchvision, or install the one of this torch"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it came of, the first one last."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _brought(package: str) -> set[str] | None:
    """The extras that bring a package, "" for the package itself; None if none does.

    Empty where the package is not installed as one, such as from its source.
    """
    try:
        lines = importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    found = set()
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        if name is not None and _canonical(name[0]) == package:
            extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
            found.add(extra[1] if extra else "")
    return found or None


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
