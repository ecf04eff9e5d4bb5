"""Flags of published systems are answered by ours, from a table that is complete and true."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from incatalog.cli import COMMANDS, main
from incatalog.translation import PAGES, published_scripts, translated

_HERE = Path(__file__).resolve().parent
_MAKER = runpy.run_path(str(_HERE.parent / "docs" / "translation.py"))
_OURS = json.loads((_HERE / "flags.json").read_text(encoding="utf-8"))
# Names of the flags, by script, as they were taken from the sources of both systems.
_THEIRS = json.loads((_HERE / "published_flags.json").read_text(encoding="utf-8"))


def _rows():
    return [
        pytest.param(one, id=f"{script.system}-{script.names[0]}{one.flag}")
        for script in published_scripts()
        for one in script.flags
    ]


def _complaint(capsys, *arguments):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.removeprefix("error: ").rstrip()


def test_every_flag_of_every_script_is_in_the_table() -> None:
    listed = {
        (script.system, name): {one.flag for one in script.flags}
        for script in published_scripts()
        for name in script.names
    }
    theirs = {
        (system, name): set(flags)
        for system, scripts in _THEIRS.items()
        for name, flags in scripts.items()
    }
    assert listed.keys() == theirs.keys()
    for name, flags in theirs.items():
        assert flags <= listed[name], name
    # What is listed of scripts that go together is in one of them.
    for script in published_scripts():
        together = set().union(*(theirs[script.system, name] for name in script.names))
        assert {one.flag for one in script.flags} == together, script.names


@pytest.mark.parametrize("row", _rows())
def test_a_row_names_flags_that_exist_or_says_why_there_is_none(row) -> None:
    assert row.here or row.note
    for part in row.here:
        words = part.split()
        command = next(" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS)
        flag = words[len(command.split())]
        positive = flag.replace("--no-", "--", 1)
        assert flag == "--config" or positive in _OURS[command], part
        kind = _OURS[command].get(positive, [""])[0]
        assert (flag == positive) or kind == "bool", part
        value = words[len(command.split()) + 1 :]
        if "|" in kind and value and "Path" not in kind:
            assert value[0] in kind.split("|"), part


def test_commands_of_scripts_exist() -> None:
    for script in published_scripts():
        assert set(script.commands) <= COMMANDS.keys()
        assert script.system in PAGES


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            "items quantize --num_emb_list 256 256",
            "--num_emb_list is RecLM-uni's; here: --codebooks; see docs/from-reclm-uni.md",
        ),
        (
            "train merge --SFT_load=snap/x",
            "--SFT_load is RecLM-uni's; here: --run (an adapter is merged before it is asked); "
            "see docs/from-reclm-uni.md",
        ),
        (
            "train sft --chat_template llama-3",
            "--chat_template is RecLM-uni's; nothing here: the chat template comes with the "
            "tokenizer of the model; see docs/from-reclm-uni.md",
        ),
        (
            "recommend --model m --use_CBS",
            "--use_CBS is RecLM-uni's; here: `incatalog evaluate recommend --decode unconstrained`"
            ", `incatalog evaluate chat --no-grounded` (answers are held to the catalog unless "
            "this switches it off); see docs/from-reclm-uni.md",
        ),
        (
            "train sft --seed 0 --data_path d --idx --epochs 3 --FA2",
            "--data_path is RecLM-uni's; here: --data; --idx, --FA2 likewise; "
            "see docs/from-reclm-uni.md",
        ),
        (
            "train sft --micro_batch_size 4",
            "--micro_batch_size is MiniOneRec's; here: --batch-size (of a process); "
            "see docs/from-minionerec.md",
        ),
        (
            "teacher fit --max_seq_len=10",
            "--max_seq_len is RecLM-uni's; here: --max-length (of a longer history the newest "
            "items are scored); see docs/from-reclm-uni.md",
        ),
    ],
)
def test_a_pasted_flag_is_answered_in_one_line(arguments, expected, capsys) -> None:
    assert _complaint(capsys, *arguments.split()) == expected


def test_task_names_are_translated(capsys) -> None:
    said = _complaint(capsys, "train", "sft", "--SFT_train_tasks", "SFTSeqRec-CS-MR")
    assert said.startswith("--SFT_train_tasks is RecLM-uni's; here: --candidate-ratio, ")
    assert said.endswith("; see docs/from-reclm-uni.md")


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        # A switch of ours in both its forms, and a flag whose end is one of ours.
        ("recommend", ["--no-exclude-seen", "--topk"], "--topk is"),
        ("train sft", ["--no-bf16", "--dataset", "x"], "--dataset: no such flag"),
        ("train sft", ["--exclude_seen"], "--exclude_seen: no such flag, did you mean --exclude-"),
        ("train sft", ["--epohs", "3"], "--epohs: no such flag, did you mean --epochs?"),
    ],
)
def test_slips_are_told_from_flags_of_others(command, arguments, said, capsys) -> None:
    needed = {
        "recommend": ["--model", "m", "--history", "a"],
        "train sft": ["--model", "m", "--data", "d", "--out", "o"],
    }
    assert _complaint(capsys, *command.split(), *needed[command], *arguments).startswith(said)


def test_nothing_is_said_of_flags_that_nobody_has() -> None:
    assert translated("train sft", []) == ""
    assert translated("train sft", ["--exclude_seen", "--epohs"]) == ""


def test_the_table_is_read_only_when_a_flag_is_unknown() -> None:
    code = (
        "import sys; from incatalog.cli import main; main(['--help']); "
        "main(['train', 'sft', '--epochs', 'x']); assert 'incatalog.translation' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("system", PAGES)
def test_the_page_is_that_of_the_table(system) -> None:
    text = (_HERE.parent / PAGES[system]).read_text(encoding="utf-8")
    assert text == _MAKER["page"](system), "run python docs/translation.py"
    for script in published_scripts():
        if script.system == system:
            assert all(f"| `{one.flag}` |" in text for one in script.flags)


def test_every_command_of_the_page_is_run_or_says_why_not() -> None:
    """The docs suite runs each bash and python block of the page, which lists no other command."""
    page = (_HERE.parent / PAGES["RecLM-uni"]).read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```(bash|python)\n(.*?)^```", page)
    steps = _MAKER["table"]()["step"]
    codes = [step["code"].strip("\n") + "\n" for step in steps if "code" in step]
    assert [code for _, code in blocks] == codes
    for step in steps:
        assert ("code" in step) != bool(step.get("untried"))
        ran = "with this page" if "code" in step else f"untried: {step['untried']}"
        [line] = [line for line in page.splitlines() if line.startswith(f"| [{step['section']}]")]
        assert line.endswith(f"| {ran} |")
    called = {
        f"{stage} {verb}"
        for code in codes
        for stage, verb in re.findall(r"(?m)^incatalog (\w+) ([\w-]+)", code)
        if stage != "serve"
    }
    assert called <= COMMANDS.keys()


def test_sections_are_those_of_both_readmes() -> None:
    steps = _MAKER["table"]()["step"]
    uni = {re.match(r"[\d.]*\d", step["section"])[0] for step in steps}
    assert uni == {
        *("1", "2.1", "2.2", "2.3", "2.4", "3.1", "3.2", "4.1", "4.2", "4.3", "4.4", "4.5", "4.6"),
        *("5.1", "5.2", "5.3", "6.1", "6.2", "7", "8"),
    }
    cgen = {step["cgen"] for step in steps} - {""}
    assert cgen == {
        *("1", "2.1", "2.2", "2.3", "2.4", "3.1", "3.2"),
        *("4.1", "4.2", "4.3", "5.1", "5.2", "6"),
    }


def test_the_example_of_the_page_is_what_is_said(capsys) -> None:
    page = (_HERE.parent / PAGES["RecLM-uni"]).read_text(encoding="utf-8")
    [(typed, said)] = re.findall(r"(?m)^\$ incatalog (.+)\nerror: (.+)$", page)
    assert _complaint(capsys, *typed.split()) == said


def test_links_within_the_page_lead_somewhere() -> None:
    for path in PAGES.values():
        page = _HERE.parent / path
        text = page.read_text(encoding="utf-8")
        headings = re.findall(r"(?m)^#+ (.+)$", text)
        anchors = {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
            assert (page.parent / link).exists(), link
