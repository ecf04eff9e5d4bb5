"""What most people took, as the guide of a model that knows no item of the catalog."""

from __future__ import annotations

from pathlib import Path

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import SEQUENCES, Histories, leave_one_out
from incatalog.errors import ConfigError
from incatalog.recommender.guide import Guide


def popular_guide(name: str, folder: Path, catalog: Catalog) -> Guide:
    """Popularity, counted in the histories that lie beside a catalog.

    Raises:
        ConfigError: There are none.
        DataError: They are damaged.
    """
    if not (folder / SEQUENCES).exists():
        why = f"a chat model that was never trained names no item by itself, and {folder} has"
        fit = f"`incatalog teacher fit --data {folder} --out RUN`, then --guide {name}=RUN"
        raise ConfigError(
            f"--domain {name}: {why} no {SEQUENCES} to count what is popular; "
            f"fit a teacher: {fit}; or take --guide off, and the items are the model's own guess"
        )
    from incatalog.teacher.popularity import Popularity

    split = leave_one_out(Histories.load(folder, catalog))
    popular = Popularity.from_histories((split.train(user) for user in range(len(split))), catalog)
    return Guide(popular, catalog, 1.0, 1.0)
