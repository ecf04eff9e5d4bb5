from __future__ import annotations

import copy
import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, Holdout, leave_one_out
from incatalog.data.questions import Question
from incatalog.errors import ConfigError, DataError
from incatalog.evaluation.chat import count_mentions, evaluate_chat
from incatalog.evaluation.rounds import Rounds, first_rounds, plan_rounds, score_rounds
from incatalog.evaluation.settings import EvaluateChatSettings

if TYPE_CHECKING:
    from incatalog.model.backbone import Backbone

USERS = 4
REPLY = "It takes 7 days."


def make_data(folder: Path, titles: tuple[str, ...]) -> Path:
    catalog = Catalog.from_items([Item(f"i{row}", title) for row, title in enumerate(titles)])
    random = np.random.default_rng(0)
    lists = [random.choice(len(titles), size=5, replace=False).tolist() for _ in range(USERS)]
    catalog.save(folder)
    Histories.from_lists([f"u{user}" for user in range(USERS)], lists).save(folder, catalog)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), titles)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four questions; the answer to every other one is 7."""
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    pairs = [{"question": f"How long {n}?", "answer": f"#### {7 + n % 2}"} for n in range(4)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory, data: Path, questions: Path, tiny_backbone: Backbone
) -> Path:
    """A model that has learnt two answers by heart: items 13, 24 and 47 in a list, and `REPLY`."""
    import torch
    from torch.nn.functional import cross_entropy

    from incatalog.dialogue.render import ItemRef, Message, Text
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec
    from incatalog.recommender.recommender import Recommender

    catalog = Catalog.load(data)
    backbone = copy.deepcopy(tiny_backbone)
    spec = ModelSpec(base="tiny")
    recommender = Recommender(backbone, spec, catalog)
    config = settings(Path("model"), data, questions, Path("out"))
    split = leave_one_out(Histories.load(data, catalog))
    samples = []
    for one in plan_rounds([split.test(user) for user in range(USERS)], config):
        parts = [Text("1. "), ItemRef(13), Text("\n2. "), ItemRef(24)]
        parts += [Text("\n3. "), ItemRef(47), Text("\nor Loud Oaks (1999)")]
        opening = first_rounds(recommender, one, config)
        asked = Message("user", (Text(one.question.question),))
        reply = Message("assistant", (Text(REPLY),))
        said = (*opening, Message("assistant", tuple(parts)), asked, reply)
        samples.append(recommender.renderer.conversation(said))
    network = backbone.model.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses: list[float] = []
    while len(losses) < 600 and (len(losses) < 20 or max(losses[-8:]) > 0.02):
        rendered = samples[len(losses) % USERS]
        optimiser.zero_grad()
        ids = torch.from_numpy(rendered.input_ids).long()
        mask = torch.from_numpy(rendered.loss_mask)[1:]
        loss = cross_entropy(network(ids[None]).logits[0, :-1][mask], ids[1:][mask])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, dataclasses.replace(backbone, model=network.eval()), spec)
    catalog.save(folder)
    return folder


def settings(
    model: Path, data: Path, questions: Path, out: Path, **others: Any
) -> EvaluateChatSettings:
    return EvaluateChatSettings(
        str(model), data, out, questions=questions, k=3, bootstrap=50, device="cpu",
        max_new_tokens=48, **others,
    )  # fmt: skip


def run(*folders: Path, **others: Any) -> dict[str, Any]:
    config = settings(*folders, **others)
    assert evaluate_chat(config) == config.out
    return json.loads((config.out / "summary.json").read_text())


def test_three_rounds_are_scored(
    tmp_path: Path, data: Path, questions: Path, model: Path, titles: tuple[str, ...]
) -> None:
    chat = tmp_path / "chat.json"
    turns = [{"from": "human", "value": "Hello!"}, {"from": "gpt", "value": "Sure, tell me."}]
    chat.write_text(json.dumps([{"conversations": turns}] * 3))
    summary = run(model, data, questions, tmp_path / "out", chat=chat, chats=2)
    assert summary["metrics"]["OOD@3"]["value"] == 0
    values = {name: found["value"] for name, found in summary["rounds"].items()}
    assert values == {"ExactlyK": 1, "NoControl": 1, "Accuracy": 0.5, "Numbered": 1}
    assert summary["free_text"] == {
        "answers": 4, "titles": 4, "exact": 0, "fuzzy": 0, "training": 0, "unknown": 4, "OOD": 1.0
    }  # fmt: skip
    assert summary["perplexity"]["after"]["conversations"] == 2
    assert summary["perplexity"]["after"]["value"] > 1
    records = [json.loads(line) for line in (tmp_path / "out" / "conversations.jsonl").open()]
    users = pl.read_parquet(tmp_path / "out" / "users.parquet")
    for record, hit, right in zip(records, users["HR@3"], users["Accuracy"], strict=True):
        items = [piece for piece in record["recommendation"] if "item" in piece]
        assert [item["item"] for item in items] == ["i13", "i24", "i47"]
        assert record["reply"] == REPLY
        assert hit == (record["target"] in {"i13", "i24", "i47"})
        assert right == (record["reference"] == "#### 7")
        assert record["free_text"] == [{"text": "Loud Oaks (1999)", "source": "unknown"}]
        assert record["example"]["question"] != record["question"]


def test_an_alias_in_free_text_is_a_name_of_the_catalog(
    tmp_path: Path, data: Path, questions: Path, model: Path
) -> None:
    from incatalog.items.aliases import Aliases
    from incatalog.model.saved import save_model
    from incatalog.model.spec import load_spec
    from incatalog.recommender.recommender import Recommender

    folder = tmp_path / "spelled"
    backbone = Recommender.from_pretrained(model, "cpu").backbone
    save_model(folder, backbone, dataclasses.replace(load_spec(model), aliases=1))
    catalog = Catalog.load(data)
    catalog.save(folder)
    Aliases((5,), ("Loud Oaks (1999)",)).save(folder, catalog)
    summary = run(folder, data, questions, tmp_path / "out")
    assert summary["metrics"]["OOD@3"]["value"] == 0
    assert summary["free_text"] == {
        "answers": 4, "titles": 4, "exact": 4, "fuzzy": 0, "training": 0, "unknown": 0, "OOD": 0.0
    }  # fmt: skip


def test_results_do_not_depend_on_batches(
    tmp_path: Path, data: Path, questions: Path, model: Path
) -> None:
    run(model, data, questions, tmp_path / "one", batch_size=1)
    run(model, data, questions, tmp_path / "three", batch_size=3)
    for name in ("summary.json", "users.parquet", "conversations.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


@pytest.mark.slow
def test_a_killed_run_goes_on_in_two_processes_and_ends_with_the_same_bytes(
    tmp_path: Path, data: Path, questions: Path, model: Path
) -> None:
    chat = tmp_path / "chat.json"
    turns = [{"from": "human", "value": "Hello!"}, {"from": "gpt", "value": "Sure, tell me."}]
    chat.write_text(json.dumps([{"conversations": turns}] * 5))
    run(model, data, questions, tmp_path / "whole", batch_size=1, chat=chat)
    out = tmp_path / "killed"
    flags = ["incatalog.cli", "evaluate", "chat", "--model", str(model), "--data", str(data)]
    flags += ["--questions", str(questions), "--out", str(out), "--chat", str(chat), "--k", "3"]
    flags += ["--batch-size", "1", "--bootstrap", "50", "--device", "cpu"]
    flags += ["--max-new-tokens", "48"]
    log = out / "batches-0.jsonl"
    with subprocess.Popen([sys.executable, "-m", *flags], stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and not (log.exists() and log.read_text().count("\n") >= 1):
            time.sleep(0.001)
        killed.send_signal(signal.SIGKILL)
    # Whenever the signal came: what is left is one conversation, and half of the next.
    first = log.read_text().split("\n")[0]
    log.write_text(f'{first}\n{{"positions": [1')
    assert not (out / "summary.json").exists()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc_per_node", "2", "-m", *flags]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for name in ("summary.json", "users.parquet", "conversations.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(out.glob("*-0.jsonl"))


@pytest.mark.slow
def test_smollm2_holds_conversations(
    tmp_path: Path, data: Path, questions: Path, smollm2_folder: Path
) -> None:
    from incatalog.model.backbone import load_backbone
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec

    save_model(
        tmp_path / "model", load_backbone(smollm2_folder, device="cpu"), ModelSpec(base="smollm2")
    )
    Catalog.load(data).save(tmp_path / "model")
    chat = tmp_path / "chat.json"
    turns = [{"from": "human", "value": "Hi!"}, {"from": "gpt", "value": "Hello, how are you?"}]
    chat.write_text(json.dumps([{"conversations": turns}] * 2))
    summary = run(
        tmp_path / "model", data, questions, tmp_path / "out", chat=chat, before=str(smollm2_folder)
    )
    # Nothing was trained between the two.
    assert summary["perplexity"]["before"] == summary["perplexity"]["after"]
    assert summary["rounds"]["NoControl"]["value"] == 1


def test_without_the_constraint_names_outside_the_catalog_are_counted(
    tmp_path: Path, data: Path, questions: Path, model: Path, titles: tuple[str, ...]
) -> None:
    # The model knows the second of its three items by another name than this catalog.
    other = make_data(tmp_path / "other", (*titles[:24], "Something Else", *titles[25:]))
    free = run(model, other, questions, tmp_path / "free", grounded=False)
    assert free["metrics"]["OOD@3"]["value"] == pytest.approx(1 / 3)
    assert free["rounds"]["ExactlyK"]["value"] == 1
    held = run(model, other, questions, tmp_path / "held")
    assert held["metrics"]["OOD@3"]["value"] == 0


def test_rounds_worked_out_by_hand() -> None:
    holdout = Holdout(np.array([0]), 1)
    example = Question("e", "f")
    wanted = [Question("q", "#### 1,000"), Question("q", "#### 3"), Question("q", "words")]
    spoken = [
        {"round_1": [["Here: "], ["A", 0], ["B", None]], "round_2": "so 1000.0", "control": 0},
        {"round_1": [["A", 0]], "round_2": "no idea", "control": 2},
        {"round_1": [["nothing"]], "round_2": "5", "control": 0},
    ]
    found = score_rounds(spoken, [Rounds(example, holdout, q) for q in wanted], 2)
    assert found["ExactlyK"].tolist() == [1, 0, 0]
    assert found["NoControl"].tolist() == [1, 0, 1]
    assert found["Accuracy"][:2].tolist() == [1, 0]
    assert found["Numbered"][:2].tolist() == [1, 0]
    assert np.isnan(found["Accuracy"][2])
    mentions = [[{"source": "exact"}, {"source": "unknown"}], [], [{"source": "training"}]]
    assert count_mentions(mentions) == {
        "answers": 2, "titles": 3, "exact": 1, "fuzzy": 0, "training": 1, "unknown": 1,
        "OOD": 2 / 3,
    }  # fmt: skip
    assert count_mentions([[]])["OOD"] is None


def test_a_single_question_is_no_example_of_itself(tmp_path: Path, questions: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"question": "a", "answer": "b"}')
    config = settings(Path("m"), Path("d"), path, Path("o"))
    with pytest.raises(DataError, match="holds one question"):
        plan_rounds([Holdout(np.array([0]), 1)], config)
    [one] = plan_rounds(
        [Holdout(np.array([0]), 1)], dataclasses.replace(config, examples=questions)
    )
    assert one.question == Question("a", "b")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"users": -1}, "--users -1: expected at least 0"),
        ({"batch_size": 0}, "--batch-size 0: expected at least 1"),
        ({"likeness": 0.0}, "--likeness 0.0: expected more than 0 and at most 100"),
        ({"before": "smollm2"}, "--before: its perplexity needs conversations"),
        ({"grounded": False, "exclude_seen": True}, "--exclude-seen: nothing can be excluded"),
        ({}, "--model nowhere: no language model"),
    ],
)
def test_settings_that_cannot_work_are_named(
    tmp_path: Path, data: Path, questions: Path, others: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        evaluate_chat(settings(Path("nowhere"), data, questions, tmp_path / "out", **others))
    assert str(raised.value).startswith(message)


def test_a_system_message_stands_before_all_rounds(
    tmp_path: Path, data: Path, questions: Path, model: Path
) -> None:
    from incatalog.evaluation.methods import load_recommender

    catalog, asked = Catalog.load(data), {"system": "You know films.", "wording": "test-two-turns"}
    config = settings(model, data, questions, tmp_path / "out", **asked)
    recommender = load_recommender(config, catalog, "cpu")
    split = leave_one_out(Histories.load(data, catalog))
    [one] = plan_rounds([split.test(0)], config)
    messages = first_rounds(recommender, one, config)
    assert [message.role for message in messages] == ["user", "assistant"] * 2 + ["user"]
    text = recommender.backbone.tokenizer.decode(recommender.renderer.prompt(messages))
    assert text.count("You know films.") == 1
    assert text.index("You know films.") < text.index(one.example.question)
    assert "Ok, I will consider user's preference." in text
    with pytest.raises(ConfigError, match="--wording: no wording is named 'polite'"):
        evaluate_chat(dataclasses.replace(config, wording="polite"))
