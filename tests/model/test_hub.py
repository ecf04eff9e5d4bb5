from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_server import Hub, Repository
from incatalog.errors import ConfigError, HubError
from incatalog.model.hub import is_repository, on_disk, with_model_here


@pytest.mark.parametrize("name", ["org/name", "a/b", "Org-1/name_2.x"])
def test_names_of_the_hub(name: str) -> None:
    assert is_repository(name)


@pytest.mark.parametrize(
    "name",
    ["", "tiny", "/org/name", "./org/name", "../name", "a/b/c", "org/", "http://a/b", "o/n\n"],
)
def test_what_is_no_name_of_the_hub_is_left_as_it_is(hub: Hub, name: str) -> None:
    assert not is_repository(name)
    assert on_disk(name) == name
    assert hub.requests == []


def _model(hub: Hub, **files: bytes) -> str:
    made = hub.repositories["org/name"] = Repository()
    made.commit("main", {name.replace("__", "."): text for name, text in files.items()}, "first")
    return "org/name"


def test_a_folder_here_is_taken_and_nobody_is_asked(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _model(hub, config__json=b"{}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert on_disk("org/name") == "org/name"
    assert on_disk(Path("other/name")) == Path("other/name")
    # A mistyped folder is not asked for elsewhere.
    assert on_disk("org/nmae") == "org/nmae"
    assert hub.requests == []
    with pytest.raises(ConfigError, match=r"^--revision v1: org/name is not on the hub"):
        on_disk("org/name", "v1")
    with pytest.raises(ConfigError, match=r"^--revision v1: tiny is not on the hub"):
        on_disk("tiny", "v1")


def test_a_revision_says_that_the_hub_is_meant(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _model(hub, config__json=b"{}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    assert on_disk("org/name") == "org/name"
    found = on_disk("org/name", "main")
    assert (Path(found) / "config.json").read_bytes() == b"{}"


def test_pickles_and_weights_of_other_programs_stay_there(hub: Hub) -> None:
    files = {"config__json": b"{}", "pytorch_model__bin": b"p", "model__onnx": b"o"}
    folder = Path(on_disk(_model(hub, **files, model__safetensors=b"s")))
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert not hub.asked("pytorch_model|onnx")


def test_a_commit_that_is_there_is_not_asked_for_again(hub: Hub) -> None:
    name = _model(hub, config__json=b"{}")
    commit = hub.repositories[name].branches["main"]
    folder = on_disk(name, commit)
    hub.requests.clear()
    assert on_disk(name, commit) == folder
    assert not hub.asked("resolve|revision")


def test_the_settings_of_a_command_name_the_folder(hub: Hub) -> None:
    @dataclass(frozen=True)
    class Given:
        model: Path
        revision: str | None = None

    given = Given(Path(_model(hub, config__json=b"{}")), "main")
    found = with_model_here(given)
    assert isinstance(found.model, Path)
    assert found.model.is_dir()
    assert found.revision is None
    assert with_model_here(found) is found


def message(name: str, revision: str | None = None) -> str:
    with pytest.raises(HubError) as caught:
        on_disk(name, revision, flag="--model")
    told = str(caught.value)
    assert "\n" not in told
    return told


def test_what_the_hub_does_not_give_is_one_line_with_the_next_step(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _model(hub, config__json=b"{}")
    log_in = "set HF_TOKEN, or run `hf auth login`"
    assert message("org/other") == (
        f"--model org/other: neither a folder here nor a model that {hub.url} shows; check the "
        f"name, and for a private model {log_in}"
    )
    assert message(name, "v9") == (
        "--model org/name: has no branch, tag or commit v9; leave --revision out for main"
    )
    hub.repositories[name].gated = True
    assert message(name) == (
        f"--model org/name: is gated; ask for access at {hub.url}/org/name, then {log_in}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert message("org/other").startswith(
        f"--model org/other: is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is "
        "set; unset it, or run `hf download org/other` where"
    )
    assert hub.requests == []


def test_a_snapshot_that_is_there_in_part_is_none_offline(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _model(hub, config__json=b"{}", model__safetensors=b"s")
    folder = Path(on_disk(name))
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "only in part in the cache" in message(name)


def test_a_hub_that_nobody_reaches(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    name = _model(hub, config__json=b"{}")
    folder = on_disk(name)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert on_disk(name) == folder, "the cache answers"
    told = message("org/other")
    assert told.startswith("--model org/other: http://127.0.0.1:9 does not give it (ConnectError")
    assert told.endswith("try again, or name a folder")
