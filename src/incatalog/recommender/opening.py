"""What `--model` names: a trained model, a plain chat model, or the run of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from incatalog.artifacts import MANIFEST, read_json
from incatalog.config import SPEC_FILES
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.model_catalog import model_catalog
from incatalog.data.parquet_documents import document
from incatalog.errors import ConfigError, DataError
from incatalog.recommender.settings import OFF, OWN

if TYPE_CHECKING:
    from incatalog.recommender.guide import Guide
    from incatalog.recommender.recommender import Recommender
    from incatalog.steering.sentences import Sentences
    from incatalog.steering.steering import Steering

ModelKind = Literal["trained", "chat", "teacher"]
PACKAGED = "smollm2"
_TEACHER_FILE = "teacher.json"


def model_kind(model: str) -> ModelKind:
    """What lies in the folder of a model: one trained on a catalog, a chat model, or a teacher.

    Raises:
        ConfigError: There is none of them.
    """
    folder = Path(model)
    if model == PACKAGED:
        return "chat"
    wanted = f"a trained model, a chat model, a teacher's run folder, {PACKAGED}, or a hub name"
    if not folder.is_dir():
        raise ConfigError(f"--model: no such folder: {model}; expected {wanted}")
    if any((folder / name).exists() for name in SPEC_FILES):
        return "trained"
    if (folder / _TEACHER_FILE).exists():
        return "teacher"
    if (folder / "config.json").exists():
        return "chat"
    if (folder / MANIFEST).exists():
        raise ConfigError(
            f"--model {model}: holds no model, or an unfinished one; expected {wanted}"
        )
    raise ConfigError(f"--model {model}: is none; expected {wanted}")


def catalog_of(model: str, kind: ModelKind, data: Path | None, title_field: str = "") -> Catalog:
    """The catalog that a model is to recommend from.

    A trained model has its own, a teacher that of the data it was fitted on.

    Raises:
        ConfigError: A chat model comes without data, or a trained model with some.
        DataError: The catalog is missing or broken.
    """
    if kind == "trained":
        if data is not None:
            own = "has a catalog of its own; leave --data out"
            raise ConfigError(f"--data {data}: {model} {own}")
        return model_catalog(model, title_field)
    if data is None and kind == "chat":
        why = "a chat model that was never trained has no catalog; add --data FOLDER"
        raise ConfigError(f"--model {model}: {why}")
    folder = _fitted_on(model) if data is None else data
    if not folder.is_dir():
        raise ConfigError(f"--data {folder}: no such folder; expected one of prepared data")
    return Catalog.load(folder, title_field=title_field or None)


def open_recommender(
    model: str,
    kind: ModelKind,
    catalog: Catalog,
    *,
    guide: str,
    guide_weight: float | None = None,
    device: str = "auto",
    verify: bool = True,
    wording: str | None = None,
    system: str | None = None,
    first_share: float | None = None,
    title_field: str = "",
    weights: bool = True,
) -> Recommender:
    """Loads a trained model with its catalog, or a chat model on the catalog given.

    Without `weights` these stay where another engine has them, which is then to be asked.

    Raises:
        BackboneError: The model is incomplete or damaged.
        ConfigError: A setting cannot work.
        TeacherError: The guide is damaged, was fitted on another catalog, or does not answer.
    """
    from incatalog.recommender.guide_folder import GuideChoice
    from incatalog.recommender.recommender import Recommender

    asked: dict[str, Any] = {"verify": verify, "wording": wording, "system": system}
    asked |= {"first_share": first_share, "weights": weights}
    if kind == "trained":
        asked |= {"guide": guide, "guide_weight": guide_weight, "title_field": title_field}
        return Recommender.from_pretrained(model, device, **asked)
    # Before the weights are loaded: a mistyped guide should not cost that time.
    chosen = GuideChoice(guide, guide_weight, trained=False).load(model, catalog, device)
    return plain_recommender(model, catalog, chosen, device=device, **asked)


def plain_recommender(
    model: str,
    catalog: Catalog,
    guide: Guide | None = None,
    *,
    device: str = "auto",
    verify: bool = True,
    wording: str | None = None,
    system: str | None = None,
    first_share: float | None = None,
    weights: bool = True,
) -> Recommender:
    """Loads a chat model that was never trained on a catalog, to name the items of one.

    Without `weights` these stay where another engine has them, which is then to be asked.

    Raises:
        BackboneError: The model is incomplete or damaged, or was trained on a catalog elsewhere.
    """
    from incatalog.model.backbone import load_plain_backbone
    from incatalog.model.outline import load_plain_outline
    from incatalog.model.spec import ModelSpec
    from incatalog.packed.model import PackedModel
    from incatalog.packed.unloaded import UnloadedModel
    from incatalog.recommender.recommender import Recommender

    packed: PackedModel
    if weights:
        backbone = load_plain_backbone(model, device, verify=verify)
        packed = PackedModel(backbone.model, frozen=True)
    else:
        backbone = load_plain_outline(model, verify=verify)
        packed = UnloadedModel(backbone.model)
    # What it has not learned at the first place cannot help it at others.
    untrained = ModelSpec(base=model, trained=False, first_share=0.0)
    spec = untrained.asked(wording, system, first_share)
    return Recommender(backbone, spec, catalog, packed=packed, guide=guide)


def _fitted_on(teacher: str) -> Path:
    """The data that a teacher's run names, if it still lies there."""
    found = None
    path = Path(teacher) / MANIFEST
    if path.exists():
        try:
            found = read_json(path)["config"]["data"]
        except (DataError, KeyError, TypeError):
            found = None
    if isinstance(found, str) and document(found, METAS).exists():
        return Path(found)
    why = "a teacher's run holds no catalog; add --data with the folder it was fitted on"
    raise ConfigError(f"--model {teacher}: {why}")


def open_domains(
    model: str,
    kind: ModelKind,
    catalogs: Mapping[str, Catalog],
    folders: Mapping[str, Path],
    guides: Mapping[str, str],
    *,
    guide_weight: float | None = None,
    encoder: str = "words",
    device: str = "auto",
    **asked: Any,
) -> dict[str, Recommender]:
    """A model on each of some catalogs, guided and steered; its weights are loaded once.

    A chat model without a guide is guided by what is popular in the data.

    Args:
        model: What ``--model`` names.
        kind: What that is.
        catalogs: At least one, by name; of a trained model its own where no folder is named.
        folders: Folders of the catalogs, where codes and vectors of their items lie too.
        guides: The guide of each: a teacher, or one of the words of :class:`GuideChoice`.
        guide_weight: How much they count; None for as fitted.
        encoder: What reads what is said: minilm, words, off, or a folder.
        device: Where model and guides run.
        asked: Options of :func:`open_recommender`.

    Raises:
        IncatalogError: As :func:`open_recommender` does, or a catalog lacks what the model needs.
    """
    from incatalog.recommender.guide_folder import GuideChoice
    from incatalog.recommender.popular_guide import popular_guide
    from incatalog.steering.balance import Balance
    from incatalog.steering.steering import Steering

    trained = kind == "trained"
    chosen: dict[str, tuple[Guide | None, Steering | None]] = {}
    sentences = loaded_encoder(encoder)
    for name, catalog in catalogs.items():
        own = trained and catalog.fingerprint == model_catalog(model).fingerprint
        teacher = OFF if guides[name] == OWN and not own else guides[name]
        choice = GuideChoice(teacher, guide_weight, trained=trained)
        guide = choice.load(model, catalog, device)
        if guide is None and not trained and guides[name] != OFF:
            # Its own opinion of titles is worth nothing.
            guide = popular_guide(name, folders[name], catalog)
        steering = None
        if sentences is not None:
            balance = Balance.beside(choice.folder(model), encoder)
            steering = Steering.of(catalog, encoder=sentences, balance=balance)
        chosen[name] = guide, steering
    first = next(iter(catalogs.values()))
    base = open_recommender(model, kind, first, guide=OFF, device=device, **asked)
    found = {}
    for name, catalog in catalogs.items():
        guide, steering = chosen[name]
        moved = base if name not in folders else moved_to(base, catalog, folders[name])
        found[name] = moved.with_guide(guide).with_steering(steering)
    return found


def loaded_encoder(name: str) -> str | Sentences | None:
    """What reads what is said, as :meth:`Steering.of` takes it; None where nothing does."""
    from incatalog.model.pretrained import cache_folder
    from incatalog.steering.balance import WORDS
    from incatalog.steering.sentences import Sentences
    from incatalog.steering.steering import CACHE

    if name == OFF:
        return None
    return WORDS if name == WORDS else Sentences.load(name, cache_folder() / CACHE)


def moved_to(recommender: Recommender, catalog: Catalog, folder: Path) -> Recommender:
    """The same model on another catalog, with codes or vectors of that folder as it needs them.

    Raises:
        ConfigError: It needs vectors, and the folder holds none or several files of them.
        IncatalogError: What lies there does not fit the catalog.
    """
    from incatalog.codes.semantic_ids import load_semantic_ids
    from incatalog.data.vectors import load_vectors

    if catalog.fingerprint == recommender.catalog.fingerprint:
        return recommender.with_metadata(catalog)
    codes = vectors = None
    if recommender.spec.item_form == "codes":
        codes = load_semantic_ids(folder, catalog)
    if (head := recommender.backbone.head) is not None:
        found = sorted(folder.glob("*.npy"))
        if len(found) != 1:
            why = f"expected one with the items' vectors; {head.how_to_embed()}"
            files = f"found {len(found)} npy files in {folder}"
            raise ConfigError(f"--domain {catalog.name}: {files}; {why}")
        vectors = load_vectors(found[0], len(catalog))
    return recommender.with_catalog(catalog, codes, vectors, guide=None)
