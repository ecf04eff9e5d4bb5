"""What is published of a model's folder, checked before anybody is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError, safe_open

from incatalog.artifacts import MANIFEST, read_json
from incatalog.checksums import CARD, CHECKSUMS, FILES, file_checksums, sealed, verify_checksums
from incatalog.data.model_catalog import model_catalog
from incatalog.errors import ArtifactError, BackboneError, ConfigError
from incatalog.model.hub import PICKLES, is_repository
from incatalog.model.saved import is_adapter
from incatalog.model.spec import load_spec, require_spans, spec_file
from incatalog.recommender.guide_folder import own_guide_files, verify_own_guide

# What a model without a record of its files is made of.
_PARTS = (
    *("*.safetensors", "*.json", "*.jsonl", "*.parquet"),
    *("*.jinja", "*.txt", "*.model", "*.item2id"),
)


@dataclass(frozen=True)
class Parcel:
    """The files of a model as they are sent, by their paths; and what stays behind."""

    files: Mapping[str, Path | bytes]
    left: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> Parcel:
        """Takes together what is published of a folder, all but its card.

        In place of the run's manifest, which names folders of this machine, goes a record of
        checksums. Logs, checkpoints and hidden files stay here, as does what the run did not write.

        Raises:
            ArtifactError: The run is not finished, or a file is not as it was written.
            BackboneError: It is no trained model, or one that others could not load.
            ConfigError: A file runs code when it is read.
            DataError: The catalog is missing or broken.
        """
        spec = load_spec(folder)
        require_spans(folder, spec)
        recorded = _recorded(folder)
        verify_checksums(folder)
        verify_own_guide(folder)
        _check_base(folder, spec.base)
        there = file_checksums(folder)
        if pickled := [name for name in there if any(fnmatch(name, one) for one in PICKLES)]:
            more = f" and {len(pickled) - 1} more" if len(pickled) > 1 else ""
            why = "a pickle, which runs code when it is read; only safetensors are published"
            raise ConfigError(f"{folder / pickled[0]}{more}: is {why}; convert it, or move it away")
        _check_weights(folder, there)
        model_catalog(folder)
        if recorded is None:
            recorded = {name for name in there if any(fnmatch(name, one) for one in _PARTS)}
        guide = own_guide_files(folder)
        sent = {name for name in there if name in recorded or name in guide}
        sent |= {name for name in there if name.startswith("LICENSE")}
        # A guide has a record of its own, as another one may take its place.
        sums = sealed({FILES: {name: there[name] for name in sorted(sent) if name not in guide}})
        files: dict[str, Path | bytes] = {name: folder / name for name in sorted(sent)}
        files[CHECKSUMS] = (json.dumps(sums, indent=2) + "\n").encode()
        return cls(files, tuple(name for name in there if name not in sent))

    def with_card(self, text: str) -> Parcel:
        """The same with a card."""
        return Parcel({**self.files, CARD: text.encode()}, self.left)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(found) if isinstance(found, bytes) else found.stat().st_size
            for name, found in self.files.items()
        }


def _recorded(folder: Path) -> set[str] | None:
    """The files that a finished run, or one who published, recorded; None without a record."""
    if (folder / MANIFEST).exists():
        found = read_json(folder / MANIFEST)
        if not isinstance(found, dict) or found.get("status") != "finished":
            raise ArtifactError(f"--model {folder}: is not finished; repeat its command first")
        return set(found[FILES]) if isinstance(found.get(FILES), dict) else None
    if (folder / CHECKSUMS).exists():
        return set(read_json(folder / CHECKSUMS).get(FILES, {}))
    return None


def _check_base(folder: Path, base: str) -> None:
    """Refuses an adapter whose base others could not find."""
    if not is_adapter(folder) or base == "smollm2":
        return
    inside = (folder / base).resolve().is_relative_to(folder.resolve()) and base.startswith(".")
    if inside or (is_repository(base) and not Path(base).exists()):
        return
    why = f"is an adapter of {base} (see {spec_file(folder).name}), which only this machine has"
    raise BackboneError(
        f"--model {folder}: {why}; publish what `incatalog train merge` makes of it"
    )


def _check_weights(folder: Path, names: Mapping[str, str]) -> None:
    """Reads the heads of all weights: a file that is cut is refused here, and not by its users."""
    weights = [name for name in names if name.endswith(".safetensors")]
    if not any("/" not in name for name in weights):
        raise BackboneError(f"--model {folder}: holds no *.safetensors; train the model again")
    for name in weights:
        try:
            with safe_open(folder / name, framework="np") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            why = f"cannot be read ({error}); restore it, or train the model again"
            raise BackboneError(f"{folder / name}: {why}") from error
