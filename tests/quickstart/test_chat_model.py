from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from incatalog.errors import BackboneError, HubError
from incatalog.quickstart.chat_model import local_model


def test_a_folder_is_taken_if_it_can_chat(tiny_backbone, tmp_path: Path) -> None:
    tiny_backbone.model.save_pretrained(tmp_path)
    tiny_backbone.tokenizer.save_pretrained(tmp_path)
    assert local_model(str(tmp_path)) == str(tmp_path.resolve())
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    config = tmp_path / "tokenizer_config.json"
    told = json.loads(config.read_text(encoding="utf-8"))
    told.pop("chat_template", None)
    config.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(BackboneError, match="no chat template; choose an instruction-tuned model"):
        local_model(str(tmp_path))


def test_what_is_no_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="--model nobody/no-such-model: is not in the cache"):
        local_model("nobody/no-such-model")
    with pytest.raises(HubError, match="--model not a name: neither a folder here nor a name"):
        local_model("not a name")
    # A mistyped folder is no model of somebody else.
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match="--model runs/modle: neither a folder here nor a name"):
        local_model("runs/modle")
    with pytest.raises(BackboneError, match=r"holds no config\.json"):
        local_model(str(tmp_path))
