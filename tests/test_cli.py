from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from incatalog.cli import COMMANDS, main
from incatalog.flags import field_help

if TYPE_CHECKING:
    from incatalog.model.backbone import Backbone
    from incatalog.recommender.answer import Recommendation

INCATALOG = Path(sys.executable).parent / "incatalog"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command that has to end with exit code 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip()


def shown(one: Recommendation) -> dict[str, object]:
    """A recommendation as a program reads it."""
    return {name: getattr(one, name) for name in ("rank", "item_id", "title", "score")}


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, titles: tuple[str, ...]
) -> Path:
    """A random model over the first eight titles; the first four are dramas."""
    from incatalog.data.catalog import Catalog, Item
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec

    folder = tmp_path_factory.mktemp("model")
    save_model(folder, tiny_backbone, ModelSpec(base="tiny"))
    Catalog.from_items(
        Item(f"m{row}", title, categories=("Drama",) if row < 4 else ())
        for row, title in enumerate(titles[:8])
    ).save(folder)
    return folder


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview_names_every_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"incatalog {name} " in shown
        assert command.summary in shown


def test_overview_of_a_stage_names_its_commands_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 0
    shown = capsys.readouterr().out
    assert "incatalog train sft" in shown
    assert "incatalog train merge" in shown
    assert "incatalog data" not in shown


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_help_shows_every_flag_with_the_text_of_its_field(
    name: str, command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    # Without white space, since lines also break after hyphens.
    shown = "".join(capsys.readouterr().out.split())
    settings = COMMANDS[name].settings
    nested = {f.name for f in dataclasses.fields(settings) if dataclasses.is_dataclass(f.default)}
    for field, text in field_help(settings).items():
        if field in nested:
            field = text = field + "."
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
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([INCATALOG, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Time of the processor, and the least of a few: what else runs is not the command's doing.
    assert min(times) < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    program = (
        "import sys\nfrom incatalog.cli import main\n"
        f"try:\n    main({[*name.split(), '--help']!r})\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'polars', 'rich'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_library_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "data", "check", "--data", str(tmp_path / "none"))
    assert str(tmp_path / "none") in message


def test_checked_data_decides_the_exit_code(tmp_path: Path) -> None:
    metas = {str(n): {"title": f"Film {n}"} for n in range(4)}
    (tmp_path / "metas.jsonl").write_text(json.dumps(metas))
    (tmp_path / "category.jsonl").write_text("{}")
    (tmp_path / "sequential.jsonl").write_text(json.dumps({"a": list("0123"), "b": list("321")}))
    assert main(["data", "check", "--data", str(tmp_path)]) == 0
    assert main(["data", "check", str(tmp_path)]) == 0
    (tmp_path / "sequential.jsonl").write_text("{}")
    assert main(["data", "check", "--data", str(tmp_path)]) == 1


def test_bad_flags_end_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", "sft", "--model", "tiny", "--epoks", "3")
    assert message.startswith("--epoks: no such flag, did you mean --epochs?")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["dta"], "dta: no such command, did you mean data?; see incatalog --help"),
        (["zzz"], "zzz: no such command; see incatalog --help"),
        (["data", "amzon"], "data amzon: no such command, did you mean amazon?"),
    ],
)
def test_unknown_commands_are_named(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *arguments).startswith(expected)


def test_recommend_prints_json_that_python_agrees_with(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from incatalog.recommender.recommender import Recommender

    flags = ["--model", str(model), "--history", "m1, m5", "--k", "3", "--format", "json"]
    assert main(["recommend", *flags, "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = Recommender.from_pretrained(model, device="cpu").recommend(["m1", "m5"], k=3)
    assert found == [shown(one) for one in expected]
    assert [one["rank"] for one in found] == [1, 2, 3]
    assert not {"m1", "m5"} & {one["item_id"] for one in found}


def test_recommend_prints_a_table(
    model: Path, titles: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(model), "--history", "m1", "--exclude", "m0,m2", "--categories"]
    assert main(["recommend", *flags, "Drama", "--k", "1", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert titles[3] in captured.out
    assert "m3" in captured.out
    assert "notice" not in captured.err


def test_recommend_obeys_conditions(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", str(model), "--history", "m1", "--k", "2", "--format", "json"]
    where = ["--where", "id=m2,m3,m4", "--where", "id!=m3", "category=drama"]
    assert main(["recommend", *flags, *where, "--device", "cpu"]) == 0
    assert {one["item_id"] for one in json.loads(capsys.readouterr().out)} == {"m2"}


def test_recommend_more_than_there_is_gives_all_with_a_notice(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(model), "--history", "m1", "--k", "20", "--format", "json"]
    assert main(["recommend", *flags, "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    ids = {one["item_id"] for one in json.loads(captured.out)}
    assert ids == {f"m{row}" for row in range(8)} - {"m1"}
    assert "notice: --k 20: only 7 items are left to recommend\n" in captured.err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ["--history", "m1,mm5"],
            "--history: no item 'mm5' in the model's catalog of 8 items; near",
        ),
        (["--history", "zzz"], "--history: no item 'zzz' in the model's catalog of 8 items"),
        (["--history", "m1", "--exclude", "9"], "--exclude: no item '9'"),
        (["--history", "m1", "--categories", "Dramas"], "--categories: "),
        (["--history", "m1", "--where", "prize<3"], "--where: catalog model"),
        (
            ["--history", "m1", "--where", "id<3"],
            "--where: id: lt: found 3, and items of model",
        ),
        (["--history", "m1", "--where", "<3"], "--where '<3': no condition; expected one such as"),
        (
            ["--history", "m1", "--where", "id=x"],
            "--where: no item of 8 fulfils id=x; ask for less",
        ),
        (["--history", "m1", "--k", "0"], "--k 0: expected at least 1"),
        (["--history", "m1", "--exclude", "m0,m2,m3", "--categories", "Drama"], "no item left"),
    ],
)
def test_recommend_names_the_flag_that_cannot_work(
    model: Path, flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(
        capsys, "recommend", "--model", str(model), "--device", "cpu", *flags
    ).startswith(expected)


def test_near_items_are_named_with_their_titles(
    model: Path, titles: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "recommend", "--model", str(model), "--history", "mm5")
    assert f"'m5' ({titles[5]})" in message


def test_recommend_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = refused(capsys, "recommend", "--model", str(tmp_path / "x"), "--history", "1")
    assert missing.startswith(
        f"--model: no such folder: {tmp_path / 'x'}; expected a trained model"
    )
    refused(capsys, "recommend", "--model", str(tmp_path), "--history", "1")


def test_names_that_hold_commas_can_be_given(
    model: Path, titles: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from incatalog.data.catalog import Catalog, Item

    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    ids = ["e,f", "e", "f", "x, y", *(f"m{row}" for row in range(4, 8))]
    Catalog.from_items(
        Item(item_id, title, categories=("Toys, Games",) if row < 4 else ("Ink",))
        for row, (item_id, title) in enumerate(zip(ids, titles, strict=False))
    ).save(folder)
    base = ["recommend", "--model", str(folder), "--k", "9", "--format", "json", "--device", "cpu"]

    def shown(*flags: str) -> set[str]:
        assert main([*base, *flags]) == 0
        return {one["item_id"] for one in json.loads(capsys.readouterr().out)}

    toys = {"e,f", "e", "f", "x, y"}
    for form in (["Toys, Games"], ['"Toys, Games"'], ["Toys, Games", "Ink"]):
        expected = toys | set(ids) if "Ink" in form else toys
        assert shown("--history", "m5", "--categories", *form) == expected - {"m5"}
    repeated = ("--categories", "Ink", "--categories", "Toys, Games")
    assert shown("--history", "m5", *repeated, "--exclude", 'm4,"e,f"') == set(ids) - {
        *("m5", "m4", "e,f")
    }
    assert shown("--history", "x, y", "--categories", '"Toys, Games"') == toys - {"x, y"}
    assert shown("--history", "e", "f", "--categories", "Toys, Games") == {"e,f", "x, y"}
    for flags, message in (
        (["--history", "e,f"], "--history: 'e,f' is one name, and its parts are names too; write"),
        (["--history", "x,m5"], "--history: no item 'x' in the model's catalog of 8 items; near"),
        (["--history", "m5", "--categories", "Toys"], "--categories: catalog model: no category"),
    ):
        assert refused(capsys, *base, *flags).startswith(message)
    hint = refused(capsys, *base, "--history", "m5", "--categories", "Ink,Toys, Games")
    assert hint.endswith("""in quotes: --categories '"Toys, Games"'""")


def test_recommend_takes_titles_and_writes_csv(
    model: Path, titles: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from incatalog.recommender.recommender import Recommender

    base = ["recommend", "--model", str(model), "--k", "2", "--device", "cpu"]
    expected = Recommender.from_pretrained(model, device="cpu").recommend(["m1", "m5"], k=2)
    history = ["--history", "harbour lights ii", "m5"]
    assert main([*base, *history, "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["rank", "item_id", "title", "score"]
    assert [row[1:3] for row in rows[1:]] == [[one.item_id, one.title] for one in expected]
    # The ending of a file says what is wanted; a format that is named wins.
    out = tmp_path / "deep" / "list.json"
    assert main([*base, *history, "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == [shown(one) for one in expected]
    assert main([*base, *history, "--out", str(out), "--format", "table"]) == 0
    assert titles[1] not in out.read_text()
    assert expected[0].title in out.read_text()
    assert capsys.readouterr().out == ""
    message = refused(capsys, *base, "--history", "Harbor Lights 2")
    assert message.startswith("--history: no item 'Harbor Lights 2' in the model's catalog of 8")
    assert f"({titles[1]})" in message


def test_recommend_for_a_file_of_users(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from incatalog.recommender.recommender import Recommender

    file = tmp_path / "users.jsonl"
    file.write_text(
        '{"user": "ann", "history": ["m1", "Harbour", "gone"]}\n'
        '{"7": ["m5"]}\n{"history": ["m3"]}\n'
    )
    base = ["recommend", "--model", str(model), "--k", "2", "--device", "cpu"]
    assert main([*base, "--history-file", str(file), "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert f"notice: {file}: 'gone' left out, as the catalog has no such item\n" in captured.err
    found = json.loads(captured.out)
    assert [one["user"] for one in found] == ["ann", "7", "line 3"]
    recommender = Recommender.from_pretrained(model, device="cpu")
    for one, history in zip(found, (["m1", "m2"], ["m5"], ["m3"]), strict=True):
        expected = [item.item_id for item in recommender.recommend(history, k=2)]
        assert [item["item_id"] for item in one["items"]] == expected
    assert main([*base, "--history-file", str(file), "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0][0] == "user"
    assert [row[0] for row in rows[1:]] == ["ann", "ann", "7", "7", "line 3", "line 3"]
    both = refused(capsys, *base, "--history-file", str(file), "--history", "m1")
    assert both.startswith("--history, --history-file: each says whose list is wanted")
    file.write_text('{"user": "ann", "history": "m1"}\n')
    broken = refused(capsys, *base, "--history-file", str(file))
    assert broken.startswith(f"{file}:1: user 'ann' has no list of items; expected")


def test_a_teacher_recommends_by_itself(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from incatalog.data.catalog import Catalog
    from incatalog.teacher.popularity import Popularity
    from incatalog.teacher.teacher_folder import save_teacher

    catalog, counts = Catalog.load(model), [8, 1, 7, 2, 6, 3, 5, 4]
    save_teacher(tmp_path / "popular", Popularity(counts, catalog), catalog)
    base = ["recommend", "--model", str(tmp_path / "popular"), "--format", "json"]
    asked = [*base, "--data", str(model), "--history", "m0"]
    assert main([*asked, "--k", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["item_id"] for one in found] == ["m2", "m4", "m6"]
    # Its scores are log(count + 1), so the probabilities are as the counts and one.
    assert [one["score"] for one in found] == pytest.approx([n / 44 for n in (8, 7, 6)], rel=1e-5)
    assert main([*asked, "--no-exclude-seen", "--k", "1"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["item_id"] == "m0"
    rules = ["--categories", "Drama", "--exclude", "m2", "--where", "title~harbour"]
    assert main([*asked, *rules]) == 0
    assert [one["item_id"] for one in json.loads(capsys.readouterr().out)] == ["m3", "m1"]
    lacking = refused(capsys, *base, "--history", "m0")
    assert lacking.endswith("a teacher's run holds no catalog; add --data with the folder it was "
                            "fitted on")  # fmt: skip
    for flags in (
        ["--guide", "x"],
        ["--decode", "list"],
        ["--system", "Hi"],
        ["--first-share", "0"],
    ):
        assert "is a teacher and is asked by itself" in refused(capsys, *asked, *flags)
    ranked = refused(capsys, "recommend", "--model", str(model), "--history", "m0",
                     "--first-share", "0.3")  # fmt: skip
    assert "--first-share 0.3: is about lists that are written; add --decode list" in ranked
    own = refused(capsys, "recommend", "--model", str(model), "--data", str(model), "--history",
                  "m0")  # fmt: skip
    assert own.endswith("has a catalog of its own; leave --data out")


def test_what_is_no_folder_of_data_is_said_to_be_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text("user_id,item_id\n")
    message = refused(capsys, "teacher", "fit", "--data", str(orders), "--out", str(tmp_path / "t"))
    assert message == (
        f"{orders}: is a file; expected a folder; `incatalog data table` makes one of tables"
    )


@pytest.mark.parametrize("command", ["teacher fit", "train sft"])
def test_a_device_that_is_not_there_is_an_error(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    flags = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cuda"]
    flags += ["--model", "tiny"] if command == "train sft" else []
    message = refused(capsys, *command.split(), *flags)
    assert message.startswith("--device cuda: not usable (")
    assert message.endswith("; expected auto, cpu or cuda")
    assert not (tmp_path / "out").exists()


# What is not installed, and what cannot be written


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("train sft", "accelerate", "train"),
        ("train sft", "peft", "train"),
        ("train sft", "tensorboard", "train"),
        ("train grpo", "trl", "grpo"),
        ("train grpo", "datasets", "grpo"),
        ("train grpo", "accelerate", "grpo"),
        ("rewrite train", "trl", "grpo"),
        ("rewrite train", "accelerate", "grpo"),
        ("study", "accelerate", "train,items,evaluate"),
        ("study", "sentence_transformers", "train,items,evaluate"),
        ("demo", "fastapi", "serve"),
        ("evaluate general", "lm_eval", "lm-eval"),
        ("evaluate retrieval", "matplotlib", "plot"),
        ("evaluate chat", "rapidfuzz", "evaluate"),
        ("evaluate report", "matplotlib", "evaluate"),
        ("batch", "ray", "ray"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_done(
    tmp_path: Path, command: str, missing: str, extra: str
) -> None:
    flags = {
        "train sft": ["--model", "tiny", "--data", "data"],
        "train grpo": ["--model", "model", "--data", "data"],
        "rewrite train": ["--model", "model", "--data", "data", "--scorers", "x.yaml"],
        "study": [],
        "demo": [],
        "evaluate general": ["--model", "nobody/nowhere", "--tasks", "films"],
        "evaluate retrieval": ["--model", "nobody/nowhere", "--data", "data"],
        "evaluate chat": ["--model", "nobody/nowhere", "--data", "data", "--questions", "q.jsonl"],
        "evaluate report": ["runs"],
        "batch": ["--model", "nobody/nowhere", "--histories", "u.parquet", "--on", "ray"],
    }[command]
    # None in the place of a module is what Python takes for one that cannot be found.
    program = (
        f"import sys; sys.modules[{missing!r}] = None;"
        "from incatalog.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [*command.split(), *flags, "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {missing} is not installed; run: pip install 'incatalog[{extra}]'\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("module", "asked", "extra"),
    [
        ("psycopg", ["--state", "postgresql://me@nowhere/films"], "postgres"),
        ("opentelemetry", ["--trace"], "otel"),
    ],
)
def test_what_a_service_is_asked_to_use_is_looked_for_first(
    module: str, asked: list[str], extra: str
) -> None:
    program = (
        f"import sys; sys.modules['{module}'] = None;"
        "from incatalog.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["serve", "--model", "nobody/nowhere", *asked]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    told = f"error: {module} is not installed; run: pip install 'incatalog[{extra}]'\n"
    assert done.stderr == told


def test_a_package_that_is_missed_on_the_way_is_one_line_too(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['jaxtyping'] = None;"
        "from incatalog.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["train", "merge", "--run", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert done.stderr == "error: jaxtyping is not installed; run: pip install 'incatalog'\n"


@pytest.mark.long
def test_output_that_cannot_be_written_is_one_line(model: Path) -> None:
    for arguments in (["--version"], ["recommend", "--model", str(model), "--history", "m1"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [INCATALOG, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=100
            )
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == (
            "error: standard output: cannot be written (No space left on device); free space "
            "there, then repeat the command"
        )
        assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    # Closed before anything is written to it.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([INCATALOG, "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=100)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


def limited(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that may write no file larger than that."""
    return subprocess.run(
        [INCATALOG, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(1_000, marks=pytest.mark.long),
        pytest.param(20_000, marks=pytest.mark.slow),
    ],
)
def test_a_training_without_room_says_so_and_goes_on_later(
    tmp_path: Path, titles: tuple[str, ...], size: int
) -> None:
    from incatalog.data.catalog import Catalog, Item
    from incatalog.data.interactions import Histories

    data, out = tmp_path / "data", tmp_path / "run"
    catalog = Catalog.from_items([Item(f"i{row}", title) for row, title in enumerate(titles)])
    catalog.save(data)
    lists = [[(user + step) % len(titles) for step in range(5)] for user in range(12)]
    Histories.from_lists([f"u{user}" for user in range(12)], lists).save(data, catalog)
    arguments = [
        "train", "sft", "--model", "tiny", "--data", str(data), "--out", str(out), "--tune", "full",
        "--tiny-hidden", "16", "--tiny-inner", "16", "--tiny-layers", "1", "--tiny-heads", "1",
        "--max-steps", "2", "--batch-size", "4", "--checkpoint-every", "1", "--validate-every", "0",
        "--device", "cpu",
    ]  # fmt: skip
    full = limited(size, *arguments)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    line = full.stderr.splitlines()[-1]
    assert line.startswith(f"error: {out}")
    assert "cannot be written (" in line
    assert "limit of file sizes" in line
    assert not list(tmp_path.rglob("*.partial"))
    done = subprocess.run([INCATALOG, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (out / "incatalog.json").exists()
