from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from incatalog.cli import COMMANDS, with_leading
from incatalog.codes.settings import QuantizeSettings
from incatalog.data.settings import AmazonSettings
from incatalog.errors import ConfigError
from incatalog.flags import examples, grouped, parse
from incatalog.recommender.settings import RecommendSettings
from incatalog.training.settings import SftSettings

SFT = ["--model", "tiny", "--data", "d", "--out", "o"]


def refused(flags: list[str]) -> str:
    """The one line that says what is wrong with flags of `train sft`."""
    with pytest.raises(ConfigError) as raised:
        parse("train sft", SftSettings, flags)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


def parsed(name: str, flags: list[str]) -> Any:
    """The settings of a command, whose leading value may stand alone."""
    command = COMMANDS[name]
    return parse(name, command.settings, with_leading(command, flags))


def test_flags_fill_the_settings() -> None:
    flags = ["--reviews", "r.gz", "--meta", "m.gz", "--out", "o", "--k-core", "5", "--seed=3"]
    assert parse("data amazon", AmazonSettings, flags) == AmazonSettings(
        reviews=Path("r.gz"), meta=Path("m.gz"), out=Path("o"), k_core=5, seed=3
    )


def test_switches_have_two_forms() -> None:
    flags = ["--model", "m", "--history", "1"]
    assert parse("recommend", RecommendSettings, flags).exclude_seen is True
    off = parse("recommend", RecommendSettings, [*flags, "--no-exclude-seen"])
    assert off.exclude_seen is False
    on = parse("recommend", RecommendSettings, [*flags, "--exclude-seen"])
    assert on.exclude_seen is True


def test_a_bare_off_in_yaml_is_the_word(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    for written, expected in (("off", "off"), ("'off'", "off"), ("open", "open")):
        file.write_text(f"scope: {written}\n")
        assert parse("train sft", SftSettings, ["--config", str(file), *SFT]).scope == expected
    file.write_text("scope: on\n")
    assert refused(["--config", str(file), *SFT]).startswith("--scope: expected one of branching,")


def test_flags_of_several_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--vectors", "v.npy", "--out", "o"]
    several = parse(
        "items quantize",
        QuantizeSettings,
        [*paths, "--codebooks", "64", "32", "--sinkhorn-eps", "0", "0.01", "--epochs", "3"],
    )
    assert several.codebooks == (64, 32)
    assert several.sinkhorn_eps == (0.0, 0.01)
    assert several.layers == QuantizeSettings(Path("v"), Path("o")).layers
    file = tmp_path / "quantize.yaml"
    file.write_text("codebooks: [64, 32]\nsinkhorn_eps: [0, 0.01]\nepochs: 3\n")
    flags = ["--config", str(file), *paths]
    assert parse("items quantize", QuantizeSettings, flags) == several
    with pytest.raises(SystemExit):
        parse("items quantize", QuantizeSettings, [*flags, "--print-config"])
    file.write_text(capsys.readouterr().out)
    assert parse("items quantize", QuantizeSettings, ["--config", str(file)]) == several
    for wrong in (["x"], ["3", "x"], ["1.5"]):
        with pytest.raises(ConfigError) as raised:
            parse("items quantize", QuantizeSettings, [*paths, "--codebooks", *wrong])
        assert str(raised.value) == f"--codebooks: expected whole numbers, got {wrong[-1]!r}"


def test_one_value_of_several_may_stand_alone_in_yaml(tmp_path: Path) -> None:
    file = tmp_path / "recommend.yaml"
    for text, history in (("a,b", ("a,b",)), ("[a, 'b, c']", ("a", "b, c")), ("", ())):
        file.write_text(f"model: m\nhistory: {text}\n")
        settings = parse("recommend", RecommendSettings, ["--config", str(file)])
        assert settings == RecommendSettings("m", history)
    flags = ["--model", "m", "--history", "a", "--k", "3", "--history=b, c", "--history", "d", "e"]
    settings = parse("recommend", RecommendSettings, flags)
    assert settings == RecommendSettings("m", ("a", "b, c", "d", "e"), k=3)
    file.write_text("model: m\nhistory: [a, 7]\n")
    with pytest.raises(
        ConfigError, match=r"--history: expected texts, got '7'; in YAML, put it in"
    ):
        parse("recommend", RecommendSettings, ["--config", str(file)])
    file.write_text("codebooks: 64\nvectors: v\nout: o\n")
    found = parse("items quantize", QuantizeSettings, ["--config", str(file)])
    assert found.codebooks == (64,)


def test_yaml_fills_the_settings_and_flags_behind_it_win(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text("model: m\ndata: d\nepochs: 3\nbf16: true\nlearning_rate: 1e-4\n")
    settings = parse(
        "train sft", SftSettings, ["--config", str(file), "--out", "o", "--epochs", "7"]
    )
    assert settings == SftSettings(
        model="m", data=Path("d"), out=Path("o"), epochs=7, bf16=True, learning_rate=1e-4
    )


def test_printed_configuration_is_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*SFT, "--lora-r", "4", "--gradient-checkpointing", "--chat", "c.json"]
    with pytest.raises(SystemExit):
        parse("train sft", SftSettings, [*flags, "--print-config"])
    file = tmp_path / "again.yaml"
    file.write_text(capsys.readouterr().out)
    again = parse("train sft", SftSettings, [f"--config={file}"])
    assert again == parse("train sft", SftSettings, flags)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([*SFT, "--epochos", "3"], "--epochos: no such flag, did you mean --epochs?"),
        ([*SFT, "--epochos=3"], "--epochos: no such flag, did you mean --epochs?"),
        ([*SFT, "stray"], "stray: unexpected argument"),
        (
            [*SFT, "--epochs", "three"],
            "--epochs: expected a whole number, got 'three'",
        ),
        ([*SFT, "--epochs", "2.5"], "--epochs: expected a whole number, got '2.5'"),
        (
            [*SFT, "--learning-rate", "x"],
            "--learning-rate: expected a number, got 'x'",
        ),
        (
            [*SFT, "--scope", "all"],
            "--scope: expected one of branching, open, every, off, got 'all'",
        ),
        ([*SFT, "--bf16=3"], "--bf16: ignored explicit argument '3'"),
        ([*SFT, "--seed"], "--seed: expected one argument"),
        (["--out", "o"], "--model, --data: required, but not given"),
    ],
)
def test_bad_flags_are_named_in_one_line(flags: list[str], expected: str) -> None:
    assert refused(flags).startswith(expected)


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
def test_bad_yaml_is_named_in_one_line(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert refused([*SFT, "--config", str(file)]).startswith(expected.replace("FILE", str(file)))


def test_missing_yaml_is_named() -> None:
    message = refused([*SFT, "--config", "/no/such.yaml"])
    assert message.startswith("--config /no/such.yaml: ")


def test_flag_of_several_may_be_given_more_than_once() -> None:
    from incatalog.serving.settings import ServeSettings

    flags = ["--domain", "a=x", "--model", "m", "--domain=b=y", "--port", "1", "--domain", "c=z"]
    found = parse("serve", ServeSettings, flags)
    assert found.domain == ("a=x", "b=y", "c=z")
    assert (str(found.model), found.port) == ("m", 1)


def test_yaml_file_still_wins_over_a_flag_of_several_in_front_of_it(tmp_path: Path) -> None:
    from incatalog.serving.settings import ServeSettings

    path = tmp_path / "serve.yaml"
    path.write_text("domain: [b=y]\n")
    front = ["--model", "m", "--domain", "a=x", "--config", str(path)]
    assert parse("serve", ServeSettings, front).domain == ("b=y",)
    behind = ["--model", "m", "--config", str(path), "--domain", "a=x"]
    assert parse("serve", ServeSettings, behind).domain == ("a=x",)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_commands_that_can_be_copied(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = COMMANDS[name].settings
    with pytest.raises(SystemExit):
        parse(name, settings, ["--help"])
    head, _, said = capsys.readouterr().out.partition("\nexamples:\n")
    assert "--quiet" in head
    commands = [line.strip() for line in said.splitlines() if line.strip()]
    assert commands == examples(settings)
    assert commands
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "incatalog"
        assert words[: len(name.split())] == name.split()
        parsed(name, words[len(name.split()) :])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_heading_names_settings_and_each_once(name: str) -> None:
    settings = COMMANDS[name].settings
    fields = {field.name for field in dataclasses.fields(settings)}
    below = [member for members in grouped(settings).values() for member in members]
    assert set(below) <= fields
    assert len(set(below)) == len(below)
    # Whoever has many flags has all of them below some heading.
    if below or len(fields) > 18:
        assert fields - set(below) == set()


def test_help_stands_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("train sft", SftSettings, ["--help"])
    said = capsys.readouterr().out
    usage = "incatalog train sft [--config FILE] --model TEXT --data PATH --out PATH"
    assert said.startswith(f"usage: {usage} [--flag value ...]\n")
    lora = said.partition("\nLoRA:\n")[2].partition("\n\n")[0]
    flags = re.findall(r"(?m)^  (--[a-z-]+)", lora)
    assert flags[:4] == ["--tune", "--lora-r", "--lora-alpha", "--lora-targets"]
    assert flags[4:] == [
        *("--lora-dropout", "--lora-init", "--train-embeddings", "--train-lm-head"),
        "--quantization",
    ]


def test_quiet_is_a_flag_of_every_command_and_no_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse("train sft", SftSettings, [*SFT, "--quiet"]) == parse(
        "train sft", SftSettings, SFT
    )
    with pytest.raises(SystemExit):
        parse("train sft", SftSettings, [*SFT, "--quiet", "--print-config"])
    assert "quiet" not in capsys.readouterr().out
