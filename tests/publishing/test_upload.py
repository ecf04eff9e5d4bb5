from __future__ import annotations

from pathlib import Path

import pytest

from hub_server import Hub
from incatalog.errors import HubError
from incatalog.publishing.upload import HubTarget

NAME = "somebody/films"


@pytest.fixture
def target() -> HubTarget:
    return HubTarget(NAME, None, private=False)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path | bytes]:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(range(256)) * 4096)
    return {"config.json": b"{}", "model.safetensors": weights}


def test_all_files_are_one_commit(hub: Hub, target: HubTarget, files) -> None:
    done = target.publish(files, "Publish films")
    repository = hub.repositories[NAME]
    assert done.new
    assert done.commit == repository.branches["main"]
    assert repository.messages == ["initial commit", "Publish films"]
    assert repository.files()["model.safetensors"] == files["model.safetensors"].read_bytes()
    assert repository.files()["config.json"] == b"{}"
    assert done.address == f"{hub.url}/{NAME}"


@pytest.mark.long
def test_an_upload_that_is_cut_publishes_nothing_and_can_be_repeated(
    hub: Hub, target: HubTarget, files
) -> None:
    hub.cut_after = 100_000
    with pytest.raises(HubError) as caught:
        target.publish(files, "Publish films")
    message = str(caught.value)
    assert message.startswith(f"--to {NAME}: the upload broke (")
    assert "nothing was published; to repeat the command is harmless" in message
    assert "\n" not in message
    repository = hub.repositories[NAME]
    assert set(repository.files()) == {".gitattributes"}
    assert repository.messages == ["initial commit"]
    hub.cut_after = None
    target.publish(files, "Publish films")
    assert set(repository.files()) == {".gitattributes", *files}


@pytest.mark.long
def test_a_commit_that_is_cut_publishes_nothing_and_sends_large_files_once(
    hub: Hub, target: HubTarget, files
) -> None:
    hub.cut_commit = "middle"
    with pytest.raises(HubError, match=r"the upload broke .*nothing was published"):
        target.publish(files, "Publish films")
    repository = hub.repositories[NAME]
    assert repository.messages == ["initial commit"]
    assert len(hub.asked("PUT")) == 1
    hub.cut_commit = ""
    target.publish(files, "Publish films")
    assert len(hub.asked("PUT")) == 1
    assert set(repository.files()) == {".gitattributes", *files}


@pytest.mark.long
def test_a_commit_whose_answer_is_lost_is_told_as_published(
    hub: Hub, target: HubTarget, files
) -> None:
    hub.cut_commit = "answer"
    with pytest.raises(HubError, match="it was published all the same; to repeat"):
        target.publish(files, "Publish films")
    hub.cut_commit = ""
    assert not target.publish(files, "Publish films").new


def test_what_somebody_else_published_meanwhile_is_not_overwritten(
    hub: Hub, target: HubTarget, files
) -> None:
    target.publish(files, "Publish films")
    hub.meanwhile = {"config.json": b"theirs"}
    with pytest.raises(HubError, match="somebody else published there meanwhile; repeat"):
        target.publish({**files, "config.json": b"ours"}, "Publish films")
    assert hub.repositories[NAME].files() == {"config.json": b"theirs"}


def test_a_file_that_the_hub_leaves_out_is_not_passed_over(
    hub: Hub, target: HubTarget, files
) -> None:
    hub.ignored = ("config.json",)
    with pytest.raises(HubError, match=r"the hub left out config\.json"):
        target.publish(files, "Publish films")
