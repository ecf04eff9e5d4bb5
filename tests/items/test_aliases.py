from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from incatalog.artifacts import write_json
from incatalog.checksums import FILES, file_checksums, sealed
from incatalog.data.catalog import Catalog, Item
from incatalog.errors import ArtifactError, DataError
from incatalog.items.aliases import ALIASES, Aliases, load_paraphrases, paraphrase_texts
from incatalog.items.titles import canonical_titles

TITLES = {"a": "Sea Wolves, The (1980)", "b": "Harbour", "c": "Night Train (1959)"}


@pytest.fixture
def tokenizer(chat_tokenizers: dict[str, Any]) -> Any:
    return chat_tokenizers["chatml"]


@pytest.fixture
def catalog(tokenizer: Any) -> Catalog:
    items = Catalog.from_items(Item(key, title) for key, title in TITLES.items())
    return items.with_titles_t(canonical_titles(items, tokenizer))


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def line(item_id: str, *paraphrases: Any, **changes: Any) -> dict[str, Any]:
    title = TITLES.get(item_id, "")
    return {"item_id": item_id, "title": title, "paraphrases": list(paraphrases)} | changes


def test_paraphrases_are_cleaned_as_titles_are_and_name_one_item_each(
    tmp_path: Path, catalog: Catalog, tokenizer: Any
) -> None:
    path = write(
        tmp_path / "paraphrases.jsonl",
        line("c", "Night  Train", "Harbour", "Train &amp; Night", "Sea Wolves"),
        line("a", "The Sea Wolves", "Sea Wolves", "the <EOI> wolves", "Sea Wolves, The (1980)"),
        line("b"),
    )
    found = load_paraphrases(path, catalog, tokenizer)
    # By row and not by line: `Sea Wolves` is the name of a, which comes first in the catalog.
    assert found.aliases == Aliases(
        (0, 0, 0, 2, 2),
        ("The Sea Wolves", "Sea Wolves", "the < EOI> wolves", "Night Train", "Train & Night"),
    )
    assert (found.repeated, found.unusable) == (3, 0)
    assert found.aliases.of_row == {0: (0, 1, 2), 2: (3, 4)}
    assert found.aliases.items(3) == [0, 1, 2, 0, 0, 0, 2, 2]
    assert "Night  Train" in paraphrase_texts(path, catalog)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (line("z", "Z"), r":2: item 'z' is not in the catalog; .*`incatalog rewrite apply`"),
        (line("a", "A"), ":2: item 'a' is already on line 1"),
        (line("b", "B", title="Port"), ":2: item 'b' is called 'Port'.*it is 'Harbour'"),
        (line("b", 3), r":2: paraphrases: found \[3\]; expected a list of texts"),
        (line("b", paraphrases="B"), ":2: paraphrases: found 'B'"),
        (line("b") | {"item_id": 5}, ":2: item_id: found 5; expected text"),
    ],
)
def test_what_are_no_paraphrases_of_the_catalog_is_refused(
    tmp_path: Path, catalog: Catalog, tokenizer: Any, second: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "paraphrases.jsonl", line("a", "Wolves"), second)
    with pytest.raises(DataError, match=message):
        load_paraphrases(path, catalog, tokenizer)


def test_what_cannot_be_spelled_is_left_out_and_counted(
    tmp_path: Path, catalog: Catalog, chat_tokenizers: dict[str, Any]
) -> None:
    texts = ["Wolves", " ", "Wolves of the Sea", "\u200b", "Sea", "Sea"]
    path = write(tmp_path / "paraphrases.jsonl", line("a", *texts), line("b", "\x05"))
    for tokenizer in chat_tokenizers.values():
        found = load_paraphrases(path, catalog, tokenizer)
        assert found.aliases == Aliases((0, 0, 0), ("Wolves", "Wolves of the Sea", "Sea"))
        assert (found.repeated, found.unusable) == (1, 3)


def test_a_file_of_nothing_new_is_refused(tmp_path: Path, catalog: Catalog, tokenizer: Any) -> None:
    path = write(tmp_path / "paraphrases.jsonl", line("a", "Harbour"), line("b"))
    with pytest.raises(DataError, match="holds no paraphrase that differs from all titles"):
        load_paraphrases(path, catalog, tokenizer)


def test_aliases_lie_beside_a_model(tmp_path: Path, catalog: Catalog) -> None:
    aliases = Aliases((0, 0, 2), ("Wolves", "Été", "Train"))
    aliases.save(tmp_path, catalog)
    assert Aliases.load(tmp_path, catalog, 3) == aliases
    assert Aliases.load(tmp_path / "nowhere", catalog, 0) == Aliases()
    assert (tmp_path / ALIASES).read_text(encoding="utf-8").splitlines() == [
        '{"item_id": "a", "aliases": ["Wolves", "Été"]}',
        '{"item_id": "c", "aliases": ["Train"]}',
    ]
    with pytest.raises(DataError, match="holds 3 aliases; expected the 2 of the training"):
        Aliases.load(tmp_path, catalog, 2)
    with pytest.raises(DataError, match=f"nowhere/{ALIASES}"):
        Aliases.load(tmp_path / "nowhere", catalog, 3)
    for texts in (("Wolves", "Wolves"), ("Wolves", "Harbour")):
        Aliases((0, 2), texts).save(tmp_path, catalog)
        with pytest.raises(DataError, match="expected it to name one"):
            Aliases.load(tmp_path, catalog, 2)


def test_an_item_that_leaves_takes_its_aliases_with_it() -> None:
    aliases = Aliases((0, 0, 2), ("Wolves", "Sea", "Train"))
    assert aliases.without([0]) == Aliases((2,), ("Train",))
    assert aliases.without([1]) is aliases
    assert not aliases.without([0, 2])


def test_a_flipped_bit_of_paraphrases_is_named(tmp_path: Path) -> None:
    catalog = Catalog.from_items([Item("a", "Night")], "films")
    path = tmp_path / "paraphrases.jsonl"
    path.write_text('{"item_id": "a", "title": "Night", "paraphrases": ["Dusk"]}\n')
    write_json(tmp_path / "manifest.json", sealed({FILES: file_checksums(tmp_path)}))
    assert paraphrase_texts(path, catalog) == ("Dusk",)
    path.write_text(path.read_text().replace("Dusk", "Dusj"))
    with pytest.raises(ArtifactError, match=r"paraphrases\.jsonl: is not as it was written"):
        paraphrase_texts(path, catalog)
