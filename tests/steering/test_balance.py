from __future__ import annotations

import json
from pathlib import Path

import pytest

from incatalog.errors import ArtifactError, ConfigError
from incatalog.steering.balance import STEERING_FILE, Balance


def test_what_was_fitted_lies_beside_the_teacher(tmp_path: Path) -> None:
    assert Balance.beside(None, "minilm") == Balance.beside(tmp_path, "minilm") == Balance()
    assert Balance.beside(tmp_path, "words") == Balance.usual("words") != Balance()
    fitted = Balance(12.0, 0.5, 1.0)
    fitted.save(tmp_path, "minilm", {"users": 3})
    Balance(3.0, 1.0, 0.0).save(tmp_path, "words", {})
    assert Balance.beside(tmp_path, "minilm") == fitted
    assert Balance.beside(tmp_path, "words") == Balance(3.0, 1.0, 0.0)
    assert Balance.beside(tmp_path, "other") == Balance()


@pytest.mark.parametrize("text", ["{", "[]", '{"encoders": {"minilm": {"strength": 1}}}'])
def test_a_damaged_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / STEERING_FILE).write_text(text)
    with pytest.raises(ArtifactError, match=r"steering\.json: .*`incatalog steering fit` again"):
        Balance.beside(tmp_path, "minilm")


def test_values_out_of_range_are_refused(tmp_path: Path) -> None:
    for wrong in ({"strength": -1}, {"words": 1.5}, {"kinds": 1e9}):
        with pytest.raises(ConfigError, match=r"steering .*expected 0 to"):
            Balance(**wrong)
    known = {"encoders": {"minilm": {"strength": 1, "words": 2, "kinds": 1}}}
    (tmp_path / STEERING_FILE).write_text(json.dumps(known))
    with pytest.raises(ArtifactError, match="is damaged"):
        Balance.beside(tmp_path, "minilm")
