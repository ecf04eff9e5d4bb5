"""`incatalog rewrite catalog`: prepared data whose items are named by their paraphrases."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from incatalog.artifacts import atomic_path, open_run
from incatalog.data.catalog import ID_FIELDS, METAS, Catalog
from incatalog.data.cleaning import clean_title, title_key
from incatalog.data.documents import unique_entries, write_document
from incatalog.data.naming import CATALOG_FILE
from incatalog.data.prepared import prepared_files
from incatalog.errors import ArtifactError, DataError
from incatalog.items.aliases import paraphrase_pairs
from incatalog.items.titles import told_apart
from incatalog.rewrite.settings import RewriteCatalogSettings

_NEW = "title_t"


def rewrite_catalog(settings: RewriteCatalogSettings) -> Path:
    """Writes the data again with ``title_t``, a new name of each item that no other item has.

    That is its first paraphrase that is neither the title nor the name of another item; without one
    it keeps its own, with a category or a number behind it where that is another item's too.
    Nothing else changes: all other fields, the histories and the categories are as they were.

    Returns:
        The run folder, to be given as ``--data`` with ``--title-field title_t``.

    Raises:
        DataError: The data or the paraphrases are missing or broken, the paraphrases are those of
            other items, or none of them can be used.
        ArtifactError: The run folder holds something else, or is the data itself.
    """
    if settings.out.resolve() == settings.data.resolve():
        raise ArtifactError(f"--out {settings.out}: is the data itself; name another folder")
    files = prepared_files(settings.data)
    if not settings.paraphrases.is_file():
        hint = "make it with `incatalog rewrite apply`"
        raise DataError.at(settings.paraphrases, f"no such file; {hint}")
    catalog = Catalog.load(settings.data, title_field=settings.title_field)
    names, renamed = new_names(catalog, paraphrase_pairs(settings.paraphrases, catalog))
    if not renamed:
        none = "holds no paraphrase that is not the title or the name of another item"
        raise DataError.at(settings.paraphrases, none)
    inputs = {**files, "paraphrases": settings.paraphrases}
    run = open_run(settings.out, "rewrite catalog", settings, inputs=inputs)
    if not run.finished:
        of_id = {item.item_id: name for item, name in zip(catalog.items, names, strict=True)}
        write_document(run.folder / METAS, _metas(settings.data / METAS, of_id))
        # The currencies of prices stand beside them.
        others = files | {CATALOG_FILE: settings.data / CATALOG_FILE}
        for name, source in others.items():
            if name != METAS and Path(source).is_file():
                with atomic_path(run.folder / name) as partial:
                    shutil.copyfile(source, partial)
        run.finish(items=len(names), renamed=renamed)
    told = f"{renamed:,} of {len(names):,} items have a paraphrase as their {_NEW}"
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{told}, the others their {settings.title_field}")
    console.print(f"written to {run.folder}; train on it with --title-field {_NEW}")
    return run.folder


def new_names(catalog: Catalog, pairs: Sequence[tuple[int, str]]) -> tuple[list[str], int]:
    """A name for each item that no other has, and how many of them are paraphrases.

    Args:
        catalog: The items.
        pairs: Item rows and paraphrases, those of an item in the order in which they are tried.
    """
    owners: defaultdict[str, set[int]] = defaultdict(set)
    for titles in (catalog.titles, catalog.names):
        for row, title in enumerate(titles):
            owners[title_key(clean_title(title))].add(row)
    names = list(map(clean_title, catalog.names))
    renamed: set[int] = set()
    for row, text in pairs:
        name = clean_title(text)
        usable = name and name != names[row] and not owners[title_key(name)] - {row}
        if row in renamed or not usable:
            continue
        owners[title_key(name)].add(row)
        names[row] = name
        renamed.add(row)
    for row, name in told_apart(catalog.items, names).items():
        names[row] = name
    return names, len(renamed)


def _metas(path: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """The entries of ``metas.jsonl``, each with its new name."""
    entries = unique_entries(path, ID_FIELDS, "item")
    return {entry.key: {**entry.value, _NEW: names[entry.key]} for entry in entries}
