from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from damage import edit_tensors
from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.blend import BlendPart, BlendTeacher
from incatalog.teacher.counted import CountedTeacher, training_counts
from incatalog.teacher.ease import Ease, EaseOptions
from incatalog.teacher.knn import ItemKnn, KnnOptions
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.sasrec import TEACHER_FILE, WEIGHTS_FILE, SasRec, save_network
from incatalog.teacher.teacher import InProcessTeacher, load_teacher
from incatalog.teacher.teacher_folder import PARTS, numbers_checksum, save_teacher, teacher_paths
from incatalog.teacher.words import WordsOptions, WordsTeacher, given_vectors

TRAIN = [np.array([0, 1, 2, 2]), np.array([2, 1, 5]), np.array([7, 2])]
ASKED = [[2], [], [1, 9, 5]]


def teachers(catalog: Catalog) -> list[CountedTeacher]:
    counts = training_counts(TRAIN, len(catalog))
    vectors = given_vectors(np.random.default_rng(0).normal(size=(24, 3)))
    return [
        Popularity(counts, catalog, 0.7),
        ItemKnn.from_histories(TRAIN, catalog, KnnOptions(window=3, power=0.5, recency=0.7)),
        Ease.from_histories(TRAIN, catalog, EaseOptions(window=2, regularisation=3.0)),
        WordsTeacher.from_catalog(catalog, counts, WordsOptions("tc", newest=2)),
        WordsTeacher(catalog, counts, vectors, WordsOptions("")),
    ]


@pytest.mark.parametrize("place", range(5))
def test_every_kind_comes_back_as_it_was(place: int, catalog: Catalog, tmp_path: Path) -> None:
    teacher = teachers(catalog)[place]
    teacher.temperature = 0.25
    save_teacher(tmp_path, teacher, catalog)
    loaded = load_teacher(tmp_path, catalog, "cpu")
    assert type(loaded) is type(teacher)
    assert loaded.window == teacher.window
    for left_out in (None, [TRAIN[0], TRAIN[1], []]):
        np.testing.assert_array_equal(
            loaded.log_probabilities(ASKED, left_out=left_out),
            teacher.log_probabilities(ASKED, left_out=left_out),
        )


@pytest.fixture
def blended(catalog: Catalog, network: SasRec, tmp_path: Path) -> tuple[Path, BlendTeacher]:
    """A saved blend of a network, and of a blend of kNN and words."""

    def part(folder: Path, name: str, teacher: object, weight: float, heat: float) -> BlendPart:
        if isinstance(teacher, CountedTeacher):
            save_teacher(folder / PARTS / name, teacher, catalog)
        checksum = numbers_checksum(folder / PARTS / name)
        return BlendPart(teacher, weight, heat, name, checksum)  # type: ignore[arg-type]

    counts, own = training_counts(TRAIN, len(catalog)), teachers(catalog)
    outer, inner = tmp_path / "blend", tmp_path / "blend" / PARTS / "inner"
    inside = [part(inner, "knn", own[1], 1.0, 0.5), part(inner, "words", own[3], 0.3, 0.2)]
    save_network(outer / PARTS / "sasrec", network, catalog.fingerprint)
    blend = BlendTeacher(
        catalog,
        counts,
        [
            part(outer, "sasrec", InProcessTeacher(network, catalog), 1.0, 2.0),
            part(outer, "inner", BlendTeacher(catalog, counts, inside, 1.5), 0.5, 1.0),
        ],
        0.9,
    )
    save_teacher(outer, blend, catalog)
    return outer, blend


def test_a_blend_is_complete_in_a_copy_of_its_files(
    blended: tuple[Path, BlendTeacher], catalog: Catalog, tmp_path: Path
) -> None:
    folder, blend = blended
    expected = blend.log_probabilities(ASKED)
    paths = teacher_paths(folder)
    assert len(paths) == 2 * 5
    for path in paths:
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, tmp_path / "copy" / path)
    shutil.rmtree(folder)
    found = load_teacher(tmp_path / "copy", catalog, "cpu").log_probabilities(ASKED)
    np.testing.assert_array_equal(found, expected)


def test_another_part_is_refused(blended: tuple[Path, BlendTeacher], catalog: Catalog) -> None:
    folder, _ = blended
    save_teacher(folder / PARTS / "inner" / PARTS / "knn", teachers(catalog)[0], catalog)
    with pytest.raises(TeacherError, match="is not the part that the blend was made of"):
        load_teacher(folder, catalog, "cpu")


def test_a_changed_description_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    save_teacher(tmp_path, teachers(catalog)[1], catalog)
    path = tmp_path / TEACHER_FILE
    path.write_text(path.read_text().replace('"newest": 10', '"newest": 3'))
    with pytest.raises(TeacherError, match=r"teacher\.json: is not the description"):
        load_teacher(tmp_path, catalog)


def test_damage_is_named(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"holds no teacher\.json"):
        load_teacher(tmp_path, catalog)
    save_teacher(tmp_path, teachers(catalog)[1], catalog)
    whole = (tmp_path / WEIGHTS_FILE).read_bytes()
    edit_tensors(tmp_path / WEIGHTS_FILE, lambda tensors: tensors["data"].fill_(float("nan")))
    with pytest.raises(TeacherError, match="data is not finite"):
        load_teacher(tmp_path, catalog)
    edit_tensors(tmp_path / WEIGHTS_FILE, lambda tensors: tensors.pop("data"))
    with pytest.raises(TeacherError, match="damaged teacher"):
        load_teacher(tmp_path, catalog)
    (tmp_path / WEIGHTS_FILE).write_bytes(whole[:-50])
    with pytest.raises(TeacherError, match="damaged teacher"):
        load_teacher(tmp_path, catalog)


def test_another_catalog_and_an_unknown_kind_are_named(catalog: Catalog, tmp_path: Path) -> None:
    save_teacher(tmp_path, teachers(catalog)[0], catalog)
    swapped = Catalog.from_items(catalog.items[::-1], name="swapped")
    with pytest.raises(TeacherError, match="fitted on another catalog than 'swapped'"):
        load_teacher(tmp_path, swapped)
    path = tmp_path / TEACHER_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "gru"}))
    with pytest.raises(TeacherError, match="kind 'gru'; expected one of sasrec, gru4rec, knn"):
        load_teacher(tmp_path, catalog)
