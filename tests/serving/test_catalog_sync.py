from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import httpx
import pytest

from chatting import Server
from incatalog.cli import main
from incatalog.data.settings import TableSettings
from incatalog.data.tables import prepare_table

pytestmark = pytest.mark.long

HEADER = "sku;label;kind;price;in_stock\n"
TABLE = HEADER + (
    "p1;Paper Boats;Toy|Paper;€ 2,50;yes\n"
    "p2;Paper Kites;Toy;€ 12,00;no\n"
    "p3;Night Lamp;Light;€ 30,00;yes\n"
)
ORDERS = "user_id,item_id,timestamp\n" + "".join(f"u,p{n},{n}\n" for n in (1, 2, 3))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of a table with columns of its own names."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "products.csv").write_text(TABLE)
    (folder / "orders.csv").write_text(ORDERS)
    columns = {"item_id_column": "sku", "title_column": "label", "category_column": "kind"}
    prepare_table(
        TableSettings(
            folder / "orders.csv",
            folder / "products.csv",
            folder / "data",
            category_separator="|",
            **columns,
        )
    )
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model: Path, shop: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("synced")
    domains = ("--domain", f"films={model}", "--domain", f"shop={shop / 'data'}")
    limits = ("--max-body", "400", "--max-feed", "100000", "--state", folder / "state.sqlite")
    with Server(folder / "log", "--model", model, *domains, *limits) as server:
        yield server


def synced(server: Server, table: Path, *flags: str) -> str:
    """What the command says on either output."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(["catalog", "sync", str(table), "--url", server.url, *flags])
    assert (code == 2) == said.getvalue().startswith("error: ")
    return said.getvalue()


def test_a_table_becomes_the_catalog_of_a_running_service(running: Server, shop: Path) -> None:
    table = shop / "now.csv"
    own = ("--domain", "shop", "--data", str(shop / "data"))
    table.write_text(TABLE)
    said = "catalog shop, version 0: 0 added, 0 changed, 0 removed, 3 unchanged\n"
    assert synced(running, table, *own) == said
    new = TABLE.replace("30,00", "15,00") + "p4;Sea of Glass;Light;€ 4,00;yes\n"
    table.write_text(new.replace("p2;Paper Kites;Toy;€ 12,00;no\n", ""))
    said = "catalog shop, version 1: 1 added, 1 changed, 1 disabled, 1 unchanged\n"
    assert synced(running, table, *own, "--missing", "disable") == said
    catalog = f"{running.url}/v1/catalogs/shop/items"
    lamp = httpx.get(f"{catalog}/p3").json()
    assert lamp["attributes"] == [
        {"name": "price", "label": "Price", "value": 15.0, "shown": "€15.00"},
        {"name": "in_stock", "label": "In stock", "value": True, "shown": "yes"},
    ]
    assert httpx.get(f"{catalog}/p2").json()["enabled"] is False
    asked = {"domain": "shop", "k": 9, "where": {"price": {"lte": 15}, "in_stock": True}}
    found = httpx.post(f"{running.url}/v1/recommendations", json=asked, timeout=60).json()
    assert {item["id"] for item in found["items"]} == {"p1", "p3", "p4"}
    assert found["catalog_version"] == 1


def test_a_feed_has_a_limit_of_its_own(running: Server, shop: Path) -> None:
    item = {"id": "x", "title": "X", "description": "long " * 100}
    url = f"{running.url}/v1/catalogs/shop/items"
    assert httpx.post(url, json={"items": [item]}).status_code == 413
    assert (
        httpx.put(url, json={"items": [{**item, "description": "x" * 99_999}]}).status_code == 413
    )
    for body, message in (
        ({"items": []}, "items: list should have at least 1 item"),
        ({"items": [{"id": "x"}]}, "items.0.title: field required"),
        ({"items": [item], "gone": "x"}, "gone: no such field"),
        ({"items": [{**item, "attributes": {"a": {"b": 1}}}]}, "items.0.attributes: "),
        ({"items": [{**item, "attributes": {"title": "T"}}]}, "items.0.attributes: "),
        ({"items": [{**item, "boost_until": "soon"}]}, "items.0.boost_until: expected a day"),
        ({"items": [{**item, "colour": "red"}]}, "items.0.colour: no such field"),
    ):
        reply = httpx.put(url, json=body)
        assert reply.status_code == 400, body
        assert reply.json()["error"]["message"].startswith(message)
    broken = httpx.put(url, content=b"{", headers={"Content-Type": "application/json"})
    assert broken.json()["error"]["message"] == "body: expected JSON"
    assert (
        "put"
        in httpx.get(f"{running.url}/openapi.json").json()["paths"]["/v1/catalogs/{domain}/items"]
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: --domain: the service has several catalogs; expected one of films, shop\n"),
        (["--domain", "sho"], "error: --domain sho: no such catalog there; expected one of films,"),
        (["--domain", "shop"], "no column 'item_id' (--item-id-column); found sku, label, kind"),
        (["--domain", "shop", "--data", "/nowhere"], "error: --data /nowhere: expected a folder"),
    ],
)
def test_what_cannot_be_sent_is_told(
    running: Server, shop: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shop / "products.csv"
    columns = [] if "shop" in flags else ["--item-id-column", "sku", "--title-column", "label"]
    assert main(["catalog", "sync", str(table), "--url", running.url, *flags, *columns]) == 2
    assert message in capsys.readouterr().err


def test_who_does_not_answer_is_named(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["catalog", "sync", str(shop / "products.csv"), "--data", str(shop / "data")]
    assert main([*base, "--url", "http://127.0.0.1:9"]) == 2
    assert "is `incatalog serve` running there?" in capsys.readouterr().err
    assert main([*base, "--url", "localhost:9"]) == 2
    assert "--url localhost:9: expected an address" in capsys.readouterr().err


def test_keys_are_asked_for(
    tmp_path: Path, model: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"nightly": {"sha256": hashlib.sha256(b"secret").hexdigest(), "admin": True}}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    flags = ("--domain", f"shop={shop / 'data'}", "--keys", tmp_path / "keys.json")
    with Server(tmp_path / "log", "--model", model, *flags) as server:
        own = ("--data", str(shop / "data"))
        refused = synced(server, shop / "products.csv", *own)
        assert "401" in refused
        assert "set INCATALOG_API_KEY to a key that may change catalogs" in refused
        monkeypatch.setenv("INCATALOG_API_KEY", "secret")
        assert "3 unchanged" in synced(server, shop / "products.csv", *own)
