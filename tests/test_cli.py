from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reclm import config
from reclm.cli import COMMANDS, field_help, main, parse

RECLM = Path(sys.executable).parent / "reclm"
SFT = ["--model", "tiny", "--data", "d", "--out", "o"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command that has to end with exit code 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview_names_every_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"reclm {name} " in shown
        assert command.summary in shown


def test_overview_of_a_stage_names_its_commands_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 0
    shown = capsys.readouterr().out
    assert "reclm train sft" in shown
    assert "reclm train merge" in shown
    assert "reclm data" not in shown


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_help_shows_every_flag_with_the_text_of_its_field(
    name: str, command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    # Without white space, since lines also break after hyphens.
    shown = "".join(capsys.readouterr().out.split())
    for field, text in field_help(COMMANDS[name].settings).items():
        assert "--" + field.replace("_", "-") in shown
        assert "".join(text.split()) in shown


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_every_command_finds_its_function(name: str, command: object) -> None:
    module, function = COMMANDS[name].function.split(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("arguments", [["--help"], ["train", "sft", "--help"]])
def test_help_answers_in_half_a_second(arguments: list[str]) -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([RECLM, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    # The fastest of a few: another process on the machine is not the command's doing.
    assert min(times) < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    program = (
        "import sys\nfrom reclm.cli import main\n"
        f"try:\n    main({[*name.split(), '--help']!r})\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'polars', 'rich'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_flags_fill_the_settings() -> None:
    flags = ["--reviews", "r.gz", "--meta", "m.gz", "--out", "o", "--k-core", "5", "--seed=3"]
    assert parse("data amazon", config.AmazonConfig, flags) == config.AmazonConfig(
        reviews=Path("r.gz"), meta=Path("m.gz"), out=Path("o"), k_core=5, seed=3
    )


def test_switches_have_two_forms() -> None:
    flags = ["--model", "m", "--history", "1"]
    assert parse("recommend", config.RecommendConfig, flags).exclude_seen is True
    assert not parse(
        "recommend", config.RecommendConfig, [*flags, "--no-exclude-seen"]
    ).exclude_seen
    assert parse("recommend", config.RecommendConfig, [*flags, "--exclude-seen"]).exclude_seen


def test_yaml_fills_the_settings_and_flags_behind_it_win(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text("model: tiny\ndata: d\nepochs: 3\nbf16: true\nlearning_rate: 1e-4\n")
    settings = parse(
        "train sft", config.SftConfig, ["--config", str(file), "--out", "o", "--epochs", "7"]
    )
    assert settings == config.SftConfig(
        model="tiny", data=Path("d"), out=Path("o"), epochs=7, bf16=True, learning_rate=1e-4
    )


def test_printed_configuration_is_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*SFT, "--lora-r", "4", "--gradient-checkpointing", "--chat", "c.json"]
    with pytest.raises(SystemExit):
        main(["train", "sft", *flags, "--print-config"])
    file = tmp_path / "again.yaml"
    file.write_text(capsys.readouterr().out)
    again = parse("train sft", config.SftConfig, [f"--config={file}"])
    assert again == parse("train sft", config.SftConfig, flags)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["dta"], "dta: no such command, did you mean data?"),
        (["data", "amazn"], "data amazn: no such command, did you mean amazon?"),
        (["zzz"], "zzz: no such command; see reclm --help"),
        (["train", "sft", *SFT, "--epoch", "3"], "--epoch: no such flag, did you mean --epochs?"),
        (["train", "sft", *SFT, "--epoch=3"], "--epoch: no such flag, did you mean --epochs?"),
        (["train", "sft", *SFT, "stray"], "stray: unexpected argument"),
        (
            ["train", "sft", *SFT, "--epochs", "three"],
            "--epochs: expected a whole number, got 'three'",
        ),
        (["train", "sft", *SFT, "--epochs", "2.5"], "--epochs: expected a whole number, got '2.5'"),
        (
            ["train", "sft", *SFT, "--learning-rate", "x"],
            "--learning-rate: expected a number, got 'x'",
        ),
        (
            ["train", "sft", *SFT, "--scope", "all"],
            "--scope: expected one of branching, open, every, got 'all'",
        ),
        (["train", "sft", *SFT, "--bf16=3"], "--bf16: ignored explicit argument '3'"),
        (["train", "sft", *SFT, "--seed"], "--seed: expected one argument"),
        (["train", "sft", "--out", "o"], "--model, --data: required, but not given"),
    ],
)
def test_bad_flags_are_named_in_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *arguments).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs: three\n", "--epochs: expected a whole number, got 'three'"),
        ("epohs: 3\n", "--config FILE: no setting 'epohs', did you mean epochs?"),
        ("model: [tiny\n", "--config FILE: not a YAML mapping of settings: while parsing"),
        ("- a\n- b\n", "--config FILE: not a YAML mapping of settings: - a - b"),
        ("model: 5\n", "--model: expected text, got '5'; in YAML, put it in quotes"),
        ("data: [1, 2]\n", "--data: "),
        ("bf16: maybe\n", "--config FILE: expected true or false for a switch, got 'maybe'"),
    ],
)
def test_bad_yaml_is_named_in_one_line(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    message = refused(capsys, "train", "sft", *SFT, "--config", str(file))
    assert message.startswith(expected.replace("FILE", str(file)))


def test_missing_yaml_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", "sft", *SFT, "--config", "/no/such.yaml")
    assert message.startswith("--config /no/such.yaml: ")


def test_library_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "data", "check", "--data", str(tmp_path / "none"))
    assert str(tmp_path / "none") in message


def test_checked_data_decides_the_exit_code(tmp_path: Path) -> None:
    metas = {str(n): {"title": f"Film {n}"} for n in range(4)}
    (tmp_path / "metas.jsonl").write_text(json.dumps(metas))
    (tmp_path / "category.jsonl").write_text("{}")
    (tmp_path / "sequential.jsonl").write_text(json.dumps({"a": list("0123"), "b": list("321")}))
    assert main(["data", "check", "--data", str(tmp_path)]) == 0
    (tmp_path / "sequential.jsonl").write_text("{}")
    assert main(["data", "check", "--data", str(tmp_path)]) == 1
