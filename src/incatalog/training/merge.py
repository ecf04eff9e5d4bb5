"""`incatalog train merge`: an adapter becomes part of its backbone."""

from __future__ import annotations

import shutil
from pathlib import Path

from incatalog.artifacts import atomic_path, open_run
from incatalog.codes.semantic_ids import INDEX, ITEM2ID
from incatalog.data.catalog import CATEGORIES, METAS
from incatalog.data.naming import CATALOG_FILE
from incatalog.errors import ArtifactError, BackboneError
from incatalog.items.aliases import ALIASES
from incatalog.model.saved import _ADAPTER_FILE, _ADAPTER_WEIGHTS, load_model, save_model
from incatalog.model.spec import load_spec, spec_file
from incatalog.recommender.model_card import write_card
from incatalog.training.settings import MergeSettings

_ITEMS_OF_MODEL = (METAS, CATEGORIES, CATALOG_FILE, ALIASES, f"*{INDEX}", f"*{ITEM2ID}")


def merge_run(settings: MergeSettings) -> Path:
    """Merges the adapter of a run into its backbone and writes a plain Hugging Face folder.

    Returns:
        `settings.out`, which loads with plain transformers and holds the catalog beside the model.

    Raises:
        BackboneError: The run holds no adapter.
        ArtifactError: `out` holds something else.
    """
    load_spec(settings.run)
    if not (settings.run / _ADAPTER_FILE).exists():
        raise BackboneError(
            f"--run {settings.run}: holds no {_ADAPTER_FILE}; a fully tuned model needs no merging"
        )
    if settings.run.resolve() == settings.out.resolve():
        raise ArtifactError(f"--out {settings.out}: is the run itself; name another folder")
    inputs = {"adapter": settings.run / _ADAPTER_WEIGHTS, "spec": spec_file(settings.run)}
    run = open_run(settings.out, "train merge", settings, inputs=inputs, free_fields=("verify",))
    if run.finished:
        return settings.out
    backbone, spec = load_model(settings.run, "cpu", verify=settings.verify)
    for pattern in _ITEMS_OF_MODEL:
        for file in settings.run.glob(pattern):
            with atomic_path(settings.out / file.name) as partial:
                shutil.copyfile(file, partial)
    save_model(settings.out, backbone, spec)
    write_card(settings.out)
    run.finish()
    return settings.out
