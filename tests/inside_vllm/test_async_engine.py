from __future__ import annotations

from pathlib import Path

import pytest

from incatalog.errors import ConfigError, MissingExtraError
from incatalog.serving.server import serve
from incatalog.serving.settings import ServeSettings
from incatalog.vllm.async_engine import checked_arguments


def test_arguments_are_those_of_its_command_line() -> None:
    given = ["tensor-parallel-size=2", "max_model_len=512", "enforce-eager=true", "dtype=a=b"]
    assert checked_arguments([*given, "enable-prefix-caching=false"]) == [
        "--tensor-parallel-size", "2", "--max-model-len", "512", "--enforce-eager",
        "--dtype", "a=b", "--no-enable-prefix-caching",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("speculative-config={}", "the drafts are what the catalog forces"),
        ("speculative_config={}", "the drafts are what the catalog forces"),
        ("no-async-scheduling=true", "needs the newest token"),
        ("logits_processors=x", "leaves them out beside drafts"),
        ("max-num-seqs=4", "it is --batch"),
        ("enforce-eager", "expected NAME=VALUE"),
        ("--dtype=float32", "expected NAME=VALUE"),
    ],
)
def test_arguments_that_would_undo_the_constraint_are_refused(argument: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        checked_arguments([argument])


def test_arguments_of_vllm_are_for_vllm(tmp_path: Path) -> None:
    settings = ServeSettings(model=tmp_path, vllm=("dtype=float32",))
    with pytest.raises(ConfigError, match="is for --engine vllm"):
        serve(settings)


def test_a_share_of_the_first_place_is_for_another_engine(tmp_path: Path) -> None:
    settings = ServeSettings(model=tmp_path, engine="vllm", first_share=0.3)
    with pytest.raises(ConfigError, match=r"--first-share 0\.3: is about items found as a whole"):
        serve(settings)


def test_without_vllm_the_service_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'incatalog\[vllm\]'"):
        serve(ServeSettings(model=tmp_path, engine="vllm"))
