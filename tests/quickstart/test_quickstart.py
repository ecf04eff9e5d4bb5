"""Two files of a shop become a service that answers, in processes as people start them."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from incatalog.artifacts import MANIFEST, read_json
from incatalog.cli import main
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.flags import parse
from incatalog.quickstart.blend_quality import Quality
from incatalog.quickstart.example_talks import ExampleTalk, UserTurn, asked, held, service
from incatalog.serving.settings import ServeSettings
from incatalog.teacher.teacher import load_teacher

pytestmark = pytest.mark.long

_CUSTOMERS = 60


def quickstart(shop: Path, out: Path, model: Path, *flags: str) -> list[str]:
    files = [str(shop / "orders.csv"), str(shop / "products.csv")]
    how = ["--out", str(out), "--model", str(model), "--minutes", "0.05", "--no-serve"]
    return ["quickstart", *files, *how, *flags]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    assert main(["sample", str(folder), "--customers", str(_CUSTOMERS)]) == 0
    return folder


@pytest.fixture(scope="module")
def chat_model(plain_chat_model: Path) -> Path:
    """A chat model of random weights, as the hub has them."""
    return plain_chat_model


@pytest.fixture(scope="module")
def made(shop: Path, chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "outdoor"
    assert main(quickstart(shop, out, chat_model)) == 0
    return out


def test_it_leaves_data_blend_figures_and_a_service(made: Path, shop: Path) -> None:
    catalog = Catalog.load(made / "data")
    assert len(catalog) == 196
    skipped = read_json(made / "data" / MANIFEST)["results"]["skipped"]
    [gone] = [reason for reason in skipped if "not in the catalog" in reason]
    orders = (shop / "orders.csv").read_text(encoding="utf-8").splitlines()[1:]
    known = {item.item_id for item in catalog.items}
    assert skipped[gone] == sum(row.split(",")[2] not in known for row in orders)
    found = parse("serve", ServeSettings, ["--config", str(made / "serve.yaml")])
    assert found.domain == (f"outdoor={(made / 'data').resolve()}",)
    assert found.guide == (str((made / "blend").resolve()),)
    quality = Quality.load(made / "quality.json")
    split = leave_one_out(Histories.load(made / "data", catalog))
    blend = load_teacher(made / "blend", catalog, "cpu")
    tests = [split.test(user) for user in range(len(split))]
    lists = blend.top_k([one.history for one in tests], 10).tolist()
    hits = [one.target in answer for one, answer in zip(tests, lists, strict=True)]
    assert quality.users == quality.all_users == len(split)
    assert quality.rows["blend"][0].value == pytest.approx(sum(hits) / len(hits))


def test_repeated_it_keeps_everything(
    made: Path, shop: Path, chat_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(path for path in made.rglob("*") if path.is_file())
    before = {path: path.stat().st_mtime_ns for path in files}
    assert main(quickstart(shop, made, chat_model)) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before
    said = capsys.readouterr().out
    assert "is of these files already" in " ".join(said.split())
    assert f"next: incatalog serve --config {made / 'serve.yaml'}" in said


def test_changed_files_make_everything_anew_and_a_service_that_was_edited_stays(
    shop: Path, chat_model: Path, made: Path, tmp_path: Path
) -> None:
    service_file = made / "serve.yaml"
    edited = service_file.read_text(encoding="utf-8") + "max_k: 7\n"
    service_file.write_text(edited, encoding="utf-8")
    copy = tmp_path / "shop"
    copy.mkdir()
    for name in ("orders.csv", "products.csv"):
        (copy / name).write_bytes((shop / name).read_bytes())
    more = "99999,C00001,HI-0032,1,2026-01-01 10:00\n"
    with (copy / "orders.csv").open("a", encoding="utf-8") as stream:
        stream.write(more)
    before = read_json(made / "blend" / MANIFEST)["data"]
    assert main(quickstart(copy, made, chat_model)) == 0
    assert read_json(made / "blend" / MANIFEST)["data"] != before
    assert service_file.read_text(encoding="utf-8") == edited
    assert main(quickstart(copy, made, chat_model, "--port", "8123")) == 0
    # What was added stays there too, where the rest is written anew.
    found = yaml.safe_load(service_file.read_text(encoding="utf-8"))
    assert (found["port"], found["max_k"]) == (8123, 7)


def test_its_service_answers_with_items_of_the_catalog(made: Path) -> None:
    catalog = Catalog.load(made / "data")
    talk = ExampleTalk("someone", (UserTurn("What would you pick for me?", k=3),), ("HI-0032",))
    with service(made / "serve.yaml") as address:
        [answer] = held(address, "incatalog/outdoor", talk)
    ids = [item["id"] for item in answer["items"]]
    assert len(set(ids)) == 3
    assert "HI-0032" not in ids
    row = catalog.row("HI-0032")
    best = load_teacher(made / "blend", catalog, "cpu").top_k([[row]], 3)[0]
    assert ids == [catalog.item(int(one)).item_id for one in best]


def test_without_no_serve_it_goes_on_as_the_service(
    shop: Path, made: Path, chat_model: Path, tmp_path: Path
) -> None:
    command = [one for one in quickstart(shop, made, chat_model) if one != "--no-serve"]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "incatalog.cli", *command, "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            found, until = None, time.monotonic() + 200
            while found is None and process.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
                found = re.search(r"http://127\.0\.0\.1:\d+", (tmp_path / "log").read_text())
            assert found is not None, (tmp_path / "log").read_text()
            message = {"role": "user", "content": "Hello"}
            body = {"model": "incatalog/outdoor", "messages": [message], "k": 2}
            assert len(asked(found[0], body)["items"]) == 2
        finally:
            process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model", "/no/such"], "error: /no/such: no such folder"),
        (["--user-column", "who"], "orders.csv: no column 'who' (--user-column); found order_nu"),
        (["--minutes", "0"], "error: --minutes 0.0: expected more than 0"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_made(
    shop: Path, chat_model: Path, tmp_path: Path, flags, expected, capsys
) -> None:
    assert main(quickstart(shop, tmp_path / "out", chat_model, *flags)) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out" / "data").exists()


def test_a_port_that_is_taken_is_said_first(shop: Path, tmp_path: Path, capsys) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        files = [str(shop / "orders.csv"), str(shop / "products.csv")]
        flags = ["--out", str(tmp_path / "out"), "--port", port]
        assert main(["quickstart", *files, *flags]) == 2
    assert f"--port {port} on 127.0.0.1: Address already in use" in capsys.readouterr().err


NAMELESS = "a,b,c\n" + "".join(f"{row % 7},{row % 12 + 100},{row % 5}\n" for row in range(90))
THINGS = "x,y\n" + "".join(f"{row},Thing number {row}\n" for row in range(100, 112))


def test_on_a_terminal_it_asks_for_what_it_cannot_tell(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(NAMELESS, encoding="utf-8")
    (tmp_path / "products.csv").write_text(THINGS, encoding="utf-8")
    leader, follower = pty.openpty()
    flags = ["--interactions", "orders.csv", "--items", "products.csv", "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "incatalog.cli", "data", "table", *flags],
        cwd=tmp_path, stdin=follower, stdout=follower, stderr=follower,
        env=os.environ | {"COLUMNS": "100"},
    )  # fmt: skip
    os.close(follower)
    said, until = b"", time.monotonic() + 200
    while b"Number" not in said and time.monotonic() < until:
        if select.select([leader], [], [], 1)[0]:
            try:
                said += os.read(leader, 4096)
            except OSError:  # it has ended
                break
    assert b"Which column of orders.csv holds the customer?" in said, said.decode()
    os.write(leader, b"1\n")
    while process.poll() is None and time.monotonic() < until:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                said += os.read(leader, 4096)
            except OSError:
                break
    assert process.wait(30) == 0, said.decode()
    os.close(leader)
    chosen = read_json(tmp_path / "out" / MANIFEST)["config"]["user_column"]
    assert f"  1. {chosen}  ".encode() in said
    assert len(Histories.load(tmp_path / "out", Catalog.load(tmp_path / "out"))) > 0


def test_without_a_terminal_all_that_is_missing_is_named_at_once(tmp_path: Path, capsys) -> None:
    orders, products = tmp_path / "orders.csv", tmp_path / "products.csv"
    orders.write_text(NAMELESS, encoding="utf-8")
    products.write_text(
        "x,y,z\n" + "".join(f"{row},Thing {row},Other {row}\n" for row in range(100, 112)),
        encoding="utf-8",
    )
    flags = ["--interactions", str(orders), "--items", str(products), "--out", str(tmp_path / "o")]
    assert main(["data", "table", *flags]) == 2
    [line] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert "--user-column for the customer in orders.csv (perhaps " in line
    assert "--title-column for the title in products.csv (perhaps 'y', 'z')" in line
    assert "products.csv has x, y, z" in line
