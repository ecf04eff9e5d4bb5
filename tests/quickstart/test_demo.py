from __future__ import annotations

import json
from pathlib import Path

import pytest

from incatalog.cli import main
from incatalog.data.catalog import Catalog
from incatalog.quickstart.demo import CONVERSATIONS


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_demo_ends_with_three_conversations_about_real_movies(
    ml100k_source: Path, smollm2_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    flags = ["--out", str(out), "--source", str(ml100k_source), "--minutes", "0.02"]
    assert main(["demo", *flags]) == 0
    said = capsys.readouterr().out
    catalog = Catalog.load(out / "data")
    kept = json.loads((out / "conversations.json").read_text(encoding="utf-8"))
    assert len(kept) == len(CONVERSATIONS) == 3
    for conversation, told in zip(CONVERSATIONS, kept, strict=True):
        assert conversation.about in said
        for answer in told["answers"]:
            items = answer["items"]
            assert len(items) == 3
            text = answer["choices"][0]["message"]["content"]
            for item in items:
                assert catalog.item(catalog.row(item["id"])).title == item["title"]
                assert text[item["start"] : item["end"]] == item["title"]
                assert item["id"] not in conversation.history
    assert f"next: incatalog serve --config {out / 'serve.yaml'}" in said
    assert "http://127.0.0.1:8000" in said
    for name in ("popularity", "item-kNN", "blend"):
        assert name in said
    assert main(["demo", *flags]) == 0
    assert "is prepared already" in " ".join(capsys.readouterr().out.split())
