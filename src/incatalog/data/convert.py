"""`incatalog data convert`: prepared data in the other format."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from incatalog.artifacts import open_run
from incatalog.data.catalog import CATEGORIES, ID_FIELDS, METAS, Catalog
from incatalog.data.documents import unique_entries, write_document
from incatalog.data.interactions import Histories
from incatalog.data.naming import CATALOG_FILE
from incatalog.data.parquet_documents import document, in_format
from incatalog.data.prepared import check_out, prepared_files, written_together
from incatalog.data.settings import ConvertSettings


def convert_data(settings: ConvertSettings) -> Path:
    """Writes prepared data as Parquet, or as JSON again.

    Items keep all their fields, their order and their categories, histories theirs; fingerprints
    are the same, and so are the samples of a training.

    Returns:
        The output folder.

    Raises:
        DataError: The data is missing or broken, or holds what the format cannot.
        CatalogError: It is the catalog of a model.
        ArtifactError: The output folder holds something else, or is the data itself.
    """
    data, out, form = Path(settings.data), Path(settings.out), settings.format
    files = prepared_files(data)
    check_out(out, map(Path, files.values()))
    catalog = Catalog.load(data)
    histories = Histories.load(data, catalog)
    with written_together(out) as partial:
        run = open_run(partial, "data convert", settings, inputs=files)
        for name, keys in ((METAS, ID_FIELDS), (CATEGORIES, ())):
            if (source := document(data, name)).is_file():
                entries = unique_entries(source, keys, "entry")
                found: dict[str, Any] = {entry.key: entry.value for entry in entries}
                write_document(partial / in_format(name, form), found)
        histories.save(partial, catalog, form)
        if (data / CATALOG_FILE).is_file():
            shutil.copyfile(data / CATALOG_FILE, partial / CATALOG_FILE)
        run.finish(users=len(histories), items=len(catalog), interactions=len(histories.rows))
    if form == "parquet":
        Histories.load(out, catalog)  # Makes the arrays that are mapped.
    counts = f"{len(histories):,} users, {len(catalog):,} items"
    Console().print(f"written to {out}: {counts}", highlight=False, soft_wrap=True)
    return out
