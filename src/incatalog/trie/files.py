"""Folders of named numpy arrays: written atomically, checked and memory-mapped when read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from incatalog.artifacts import atomic_folder
from incatalog.errors import DataError, IncatalogError
from incatalog.reading import parse_json, read_text

HEADER = "header.json"
_VERSION = 1


def save_arrays(
    folder: str | Path, kind: str, arrays: Mapping[str, np.ndarray], fields: Mapping[str, Any]
) -> None:
    """Writes ``arrays`` as npy files beside a JSON header with their shapes and checksums."""
    with atomic_folder(folder) as partial:
        described = {}
        for name, array in arrays.items():
            contiguous = np.ascontiguousarray(array)
            np.save(partial / f"{name}.npy", contiguous, allow_pickle=False)
            described[name] = {
                "dtype": contiguous.dtype.str,
                "length": len(contiguous),
                "crc32": zlib.crc32(contiguous.data),
            }
        header = {"kind": kind, "version": _VERSION, "fields": dict(fields), "arrays": described}
        header["crc32"] = _header_checksum(header)
        text = json.dumps(header, ensure_ascii=False, indent=2) + "\n"
        (partial / HEADER).write_text(text, encoding="utf-8")


def load_arrays(
    folder: str | Path,
    kind: str,
    names: tuple[str, ...],
    error: type[IncatalogError],
    optional: tuple[str, ...] = (),
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a folder of :func:`save_arrays`; the arrays are read-only memory maps."""
    folder = Path(folder)
    header = _read_header(folder / HEADER, kind, error)
    described = header["arrays"]
    names += tuple(name for name in optional if name in described)
    if set(described) != set(names):
        raise error(
            f"{folder / HEADER}: lists the arrays {sorted(described)}; expected {sorted(names)}"
        )
    arrays = {}
    for name in names:
        path = folder / f"{name}.npy"
        try:
            array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except FileNotFoundError as missing:
            raise error(f"{path}: no such file; write the {kind} again") from missing
        except (OSError, ValueError, EOFError) as damaged:
            raise error(f"{path}: not a readable npy file; write the {kind} again") from damaged
        entry = described[name]
        if array.ndim != 1 or array.dtype.str != entry["dtype"] or len(array) != entry["length"]:
            raise error(
                f"{path}: holds {array.dtype.str} of shape {array.shape}; the header promises "
                f"{entry['dtype']} of length {entry['length']}; write the {kind} again"
            )
        if zlib.crc32(array.data) != entry["crc32"]:
            raise error(f"{path}: contents do not match their checksum; write the {kind} again")
        arrays[name] = array
    return arrays, header["fields"]


def _header_checksum(header: Mapping[str, Any]) -> int:
    covered = {key: value for key, value in header.items() if key != "crc32"}
    return zlib.crc32(json.dumps(covered, sort_keys=True).encode())


def _read_header(path: Path, kind: str, error: type[IncatalogError]) -> dict[str, Any]:
    try:
        if not path.exists():
            raise error(f"{path}: no such file; expected a folder with a saved {kind}")
        header = parse_json(path, read_text(path))
    except DataError as damaged:
        raise error(f"{path}: not a readable JSON file; write the {kind} again") from damaged
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise error(f"{path}: not the header of a saved {kind}")
    if header.get("version") != _VERSION:
        raise error(
            f"{path}: has format version {header.get('version')!r}; expected {_VERSION}; "
            f"write the {kind} again"
        )
    if header.get("crc32") != _header_checksum(header):
        raise error(f"{path}: contents do not match their checksum; write the {kind} again")
    return header
