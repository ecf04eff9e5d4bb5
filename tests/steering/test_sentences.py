from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from incatalog.errors import ConfigError, VectorError
from incatalog.steering.sentences import Sentences
from shelves import LetterEncoder

TEXTS = ["alien", "toy story", "fargo", "alien"]


def test_texts_are_read_once_and_kept(tmp_path: Path) -> None:
    first = LetterEncoder()
    vectors = Sentences(first, "letters", tmp_path).items(TEXTS)
    assert sorted(first.read) == ["alien", "fargo", "toy story"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    again = LetterEncoder()
    found = Sentences(again, "letters", tmp_path).items([*reversed(TEXTS), "psycho"])
    assert again.read == ["psycho"]
    np.testing.assert_array_equal(found[:4], vectors[::-1])
    other = LetterEncoder()
    Sentences(other, "other", tmp_path).items(TEXTS)
    assert len(other.read) == 3


def test_a_damaged_file_is_read_anew(tmp_path: Path) -> None:
    vectors = Sentences(LetterEncoder(), "letters", tmp_path).items(TEXTS)
    [file] = (tmp_path / "letters").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    again = LetterEncoder()
    np.testing.assert_array_equal(Sentences(again, "letters", tmp_path).items(TEXTS), vectors)
    assert len(again.read) == 3


def test_questions_are_kept_in_memory() -> None:
    encoder = LetterEncoder()
    sentences = Sentences(encoder, "letters")
    first = sentences.questions(["a", "b"])
    second = sentences.questions(["b", "a", "c"])
    assert encoder.read == ["a", "b", "c"]
    np.testing.assert_array_equal(first[0], second[1])


def test_an_encoder_that_gives_no_numbers_is_refused() -> None:
    class Broken(LetterEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            return np.full((len(texts), 2), np.nan, dtype=np.float32)

    with pytest.raises(VectorError, match="gives NaN or infinity for the text 'alien'"):
        Sentences(Broken(), "broken").items(["alien"])


@pytest.mark.parametrize("made", [True, False])
def test_what_is_no_encoder_is_refused(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "model"
    if made:
        folder.mkdir()
    why = "holds no modules.json" if made else "no such folder"
    with pytest.raises(ConfigError, match=f"--encoder .*model: {why}; expected minilm, words"):
        Sentences.load(str(folder))
