from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt

from hub_server import TOKEN, Hub
from incatalog import Recommender, SpanReader
from incatalog.checksums import verify_checksums
from incatalog.cli import main
from incatalog.errors import ConfigError, HubError
from incatalog.publishing.publish import publish
from incatalog.publishing.settings import PublishSettings

NAME = "somebody/films"
HISTORIES = [["i3", "i7"], ["i40"], []]


def settings(folder: Path, **given: object) -> PublishSettings:
    return replace(PublishSettings(model=folder, to=NAME), **given)


def lists(recommender: Recommender) -> list[list[tuple[str, float]]]:
    found = recommender.recommend_batch(HISTORIES, k=5)
    return [[(one.item_id, one.score) for one in own] for own in found]


def test_a_published_model_answers_as_the_folder_does(hub: Hub, trained: Path) -> None:
    publish(settings(trained))
    repository = hub.repositories[NAME]
    assert len(repository.messages) == 2, "the first commit is the hub's own"
    assert not repository.private
    loaded = Recommender.from_pretrained(NAME)
    assert lists(loaded) == lists(Recommender.from_pretrained(trained))
    assert loaded.catalog.name == "films"
    assert SpanReader.from_pretrained(NAME).catalog.titles == loaded.catalog.titles
    [snapshot] = Path(constants.HF_HUB_CACHE).glob("models--somebody--films/snapshots/*")
    verify_checksums(snapshot)
    assert (snapshot / "checksums.json").is_file()
    # Paths of this machine, logs and the run's own record stay here.
    names = set(repository.files())
    assert names - {".gitattributes"} == {
        *("README.md", "checksums.json", "chat_template.jinja", "config.json", "incatalog.json"),
        *("generation_config.json", "metas.jsonl", "category.jsonl", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert not any(str(trained.parent).encode() in text for text in repository.files().values())


@pytest.mark.long
def test_a_second_load_comes_from_the_cache_and_offline_asks_nobody(
    hub: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(settings(trained))
    first = lists(Recommender.from_pretrained(NAME))
    hub.requests.clear()
    assert lists(Recommender.from_pretrained(NAME)) == first
    assert not hub.asked("resolve"), "nothing was downloaded again"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert lists(Recommender.from_pretrained(NAME)) == first
    assert lists(Recommender.from_pretrained(trained)) == first
    assert hub.requests == []


def test_a_local_folder_never_asks_the_hub(hub: Hub, trained: Path) -> None:
    lists(Recommender.from_pretrained(trained))
    lists(Recommender.from_pretrained(str(trained)))
    assert hub.requests == []


def test_what_is_published_again_is_not_sent_again(
    hub: Hub, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(settings(trained))
    capsys.readouterr()
    hub.requests.clear()
    publish(settings(trained))
    assert "nothing sent: the hub has all of it already" in capsys.readouterr().err
    assert not hub.asked("PUT|commit/main")
    assert len(hub.repositories[NAME].messages) == 2


@pytest.mark.long
def test_what_the_folder_has_no_more_leaves_the_hub_and_what_others_put_there_stays(
    hub: Hub, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(settings(trained))
    repository = hub.repositories[NAME]
    others = {"guide/teacher.json": b"{}", "picture.png": b"png", "LICENSE": b"mine"}
    repository.commit("main", {**repository.files(), **others}, "by hand")
    publish(settings(trained))
    names = set(repository.files())
    assert "guide/teacher.json" not in names
    assert {"picture.png", "LICENSE"} <= names
    assert "removed there: guide/teacher.json" in capsys.readouterr().err


@pytest.mark.long
def test_revisions_are_published_and_loaded(hub: Hub, trained: Path) -> None:
    publish(settings(trained))
    main_files = hub.repositories[NAME].files()
    (trained / "LICENSE").write_text("for everybody\n")
    publish(settings(trained, revision="v2"))
    repository = hub.repositories[NAME]
    assert repository.files("main") == main_files
    assert repository.files("v2")["LICENSE"] == b"for everybody\n"
    Recommender.from_pretrained(NAME, revision="v2")
    commit = repository.branches["v2"]
    snapshot = Path(constants.HF_HUB_CACHE) / "models--somebody--films" / "snapshots" / commit
    assert (snapshot / "LICENSE").is_file()


@pytest.mark.long
def test_private_models_are_private_and_public_ones_are_not_taken_for_private(
    hub: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(settings(trained, private=True))
    assert hub.repositories[NAME].private
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(HubError, match=r"neither a folder here nor a model .* HF_TOKEN"):
        Recommender.from_pretrained(NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repositories[NAME].private = False
    before = dict(hub.repositories[NAME].branches)
    with pytest.raises(HubError, match=r"^--private: somebody/films is public already"):
        publish(settings(trained, private=True))
    assert hub.repositories[NAME].branches == before


def test_a_dry_run_shows_card_and_files_and_asks_nobody(
    hub: Hub, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert main(["publish", str(trained), "--to", NAME, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert hub.requests == []
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    card = ModelCard(shown.out)
    assert card.data.library_name == "incatalog"
    assert "model.safetensors" in shown.err
    assert "would be sent: 11 files" in shown.err


def test_the_card_that_is_published_names_the_model_there(hub: Hub, trained: Path) -> None:
    publish(settings(trained, license="apache-2.0"))
    text = hub.repositories[NAME].files()["README.md"].decode()
    card = ModelCard(text)
    assert card.data.license == "apache-2.0"
    assert card.data.tags[-1] == "cgen"
    assert "from_pretrained('somebody/films')" in text
    tokens = MarkdownIt().enable("table").parse(card.text)
    headings = [tokens[at + 1].content for at, one in enumerate(tokens) if one.tag == "h2"][::2]
    assert headings == ["How to use it", "What it was made of", "How good it is", "Licence"]
    assert (trained / "README.md").read_text(encoding="utf-8") == text
    verify_checksums(trained)


def test_a_card_that_somebody_wrote_is_sent_as_it_is(hub: Hub, trained: Path) -> None:
    own = "---\nlicense: mit\n---\n# Mine\n"
    (trained / "README.md").write_text(own)
    publish(settings(trained))
    assert hub.repositories[NAME].files()["README.md"].decode() == own
    with pytest.raises(ConfigError, match=r"README\.md was written by somebody"):
        publish(settings(trained, license="mit"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"to": "films"}, "--to films: expected the name of a model on the hub, org/name"),
        ({"to": "a/b/c"}, "--to a/b/c: expected the name"),
        ({"license": "Apache 2"}, "--license Apache 2: expected an identifier of the hub"),
        ({"model": Path("nowhere")}, "--model nowhere: no such folder"),
    ],
)
def test_flags_that_cannot_work(hub: Hub, trained: Path, given, expected) -> None:
    with pytest.raises(ConfigError) as caught:
        publish(settings(trained, **given))
    assert str(caught.value).startswith(expected)
    assert hub.requests == []


def test_who_is_not_logged_in_or_offline_is_told_before_anything_is_asked(
    hub: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        publish(settings(trained))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"nobody is logged in; set HF_TOKEN, or run `hf auth"):
        publish(settings(trained))
    assert hub.requests == []


def test_a_token_that_may_not_write_is_one_line(
    hub: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_that_reads")
    with pytest.raises(HubError) as caught:
        publish(settings(trained))
    message = str(caught.value)
    assert message.startswith("--to somebody/films: the hub refuses (")
    assert "token that may write" in message
    assert "\n" not in message
    assert hub.repositories == {}


@pytest.mark.long
def test_the_commands_of_a_user(
    hub: Hub, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes of their own, which know the hub by HF_ENDPOINT alone."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "incatalog.cli", *map(str, words)]
        given = {**environment, **more}
        return subprocess.run(command, env=given, capture_output=True, text=True, check=False)

    done = run("publish", trained, "--to", NAME, "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert f"published: {hub.url}/{NAME} (commit " in done.stderr
    assert done.stderr.splitlines()[-1] == f"next: incatalog chat --model {NAME}"
    asked = ("recommend", "--history", "i3,i7", "--k", "3", "--format", "csv", "--model")
    there = run(*asked, NAME)
    assert there.returncode == 0, there.stderr
    assert there.stderr == "", "no bars where nobody looks"
    capsys.readouterr()
    assert main([*asked, str(trained)]) == 0
    assert there.stdout == capsys.readouterr().out
    lost = run(*asked, "somebody/else", HF_HUB_OFFLINE="1")
    assert lost.returncode == 2
    assert lost.stderr.startswith("error: --model somebody/else: is not in the cache ")
    assert len(lost.stderr.splitlines()) == 1
