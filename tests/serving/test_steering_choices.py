from __future__ import annotations

from pathlib import Path

import pytest

from incatalog import Catalog
from incatalog.dialogue.render import Message, Text
from incatalog.errors import ConfigError
from incatalog.serving.guiding import GuideChoices
from incatalog.serving.settings import ServeSettings
from incatalog.serving.steering_choices import SteeringChoices
from incatalog.steering.balance import Balance


def choices(model: Path, *guide: str, encoder: str) -> SteeringChoices:
    catalog = Catalog.load(model)
    settings = ServeSettings(model=model, guide=guide, encoder=encoder)
    return SteeringChoices(encoder, GuideChoices(settings, ["a"], True, catalog.fingerprint))


def test_each_domain_is_read_by_what_the_settings_name(model: Path, tmp_path: Path) -> None:
    catalog = Catalog.load(model)
    assert choices(model, encoder="off").load("a", catalog) is None
    steering = choices(model, encoder="words").load("a", catalog)
    assert steering is not None
    assert steering.balance == Balance.usual("words")
    title = catalog.titles[3]
    told = steering.read([Message("user", (Text(f"more like {title}"),))])
    assert told.about == (3,)
    Balance(3.0, 1.0, 0.0).save(tmp_path, "words", {})
    fitted = choices(model, str(tmp_path), encoder="words").load("a", catalog)
    assert fitted is not None
    assert fitted.balance == Balance(3.0, 1.0, 0.0)
    with pytest.raises(ConfigError, match="--encoder nowhere: no such folder"):
        choices(model, encoder="nowhere").load("a", catalog)
