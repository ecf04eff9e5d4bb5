from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import decoders, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from incatalog.data.catalog import Catalog, Item
from incatalog.errors import DataError, TokenizerError
from incatalog.items.titles import canonical_spellings, canonical_titles, new_titles
from incatalog.items.tokens import EOI, SOI, ControlNames, ItemTokens, control_token_ids

FAMILIES = ("chatml", "gpt2", "llama2", "llama3", "gemma", "sentencepiece")


def catalog_of(*titles: str, categories: dict[int, tuple[str, ...]] | None = None) -> Catalog:
    return Catalog.from_items(
        Item(f"i{row}", title, categories=(categories or {}).get(row, ()))
        for row, title in enumerate(titles)
    )


@pytest.fixture(params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest, chat_tokenizers: dict[str, Any]) -> Any:
    return chat_tokenizers[request.param]


@pytest.fixture
def chatml(chat_tokenizers: dict[str, Any]) -> Any:
    return chat_tokenizers["chatml"]


def test_good_titles_stay_as_they_are(tokenizer: Any, titles: tuple[str, ...]) -> None:
    assert canonical_titles(catalog_of(*titles), tokenizer) == titles


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Quill &amp; Ink", "Quill & Ink"),
        ("Quill &amp;amp; Ink", "Quill & Ink"),
        ("  spaces \n at\tboth ends \u00a0", "spaces at both ends"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("a\u200bb\ufeff\x00c", "abc"),
        ("The End <EOI>", "The End < EOI>"),
        ("&lt;SOI&gt; begins", "< SOI> begins"),
        ("<<EOI>EOI>", "<< EOI>EOI>"),
        ("half \ud83d a pair", "half a pair"),
    ],
)
def test_titles_are_cleaned(tokenizer: Any, title: str, expected: str) -> None:
    assert canonical_titles(catalog_of(title), tokenizer) == (expected,)


def test_nasty_titles_become_items_in_every_family(tokenizer: Any) -> None:
    nasty = (
        "<EOI>", "x<SOI>y<EOI>z", "<|im_end|>\n<|im_start|>user", "</s><s>", "<|eot_id|>", "[INST]",
        "<end_of_turn>", "<0x41>", "▁▁a", "日本語 🎬", "A", "A", "A (2)", "a  b", "&#60;EOI&#62;",
    )  # fmt: skip
    titles = canonical_titles(catalog_of(*nasty), tokenizer)
    assert len(set(titles)) == len(nasty)
    for title in titles:
        assert title == title.strip() != ""
        assert SOI not in title
        assert EOI not in title
    tokens = ItemTokens.from_titles(titles, tokenizer)
    for row, title in enumerate(titles):
        assert tokens.decode(row, tokenizer) == title
        written = tokenizer(f"{SOI}{title}{EOI}", add_special_tokens=False)["input_ids"]
        assert tokens.span(row) == written
    assert canonical_titles(catalog_of(*titles), tokenizer) == titles


def test_items_with_one_title_are_told_apart(chatml: Any) -> None:
    catalog = catalog_of(
        "Night", "Night", "Night", "Night (2)", " Night", "Zebra", "Zebra",
        categories={0: ("Films",), 1: ("Films", "Books"), 2: ("Films",), 5: ("x",), 6: ("x",)},
    )  # fmt: skip
    assert canonical_titles(catalog, chatml) == (
        "Night", "Night (Books)", "Night (3)", "Night (2)", "Night (4)", "Zebra", "Zebra (2)",
    )  # fmt: skip


def test_titles_that_only_become_equal_once_cleaned_are_told_apart(chatml: Any) -> None:
    catalog = catalog_of("A & B", "A &amp; B", "A  &  B")
    assert canonical_titles(catalog, chatml) == ("A & B", "A & B (2)", "A & B (3)")


@pytest.mark.parametrize("title", ["", "   ", "\n", "\u200b", "&nbsp;", "\ud83d"])
def test_an_empty_title_names_its_item(tokenizer: Any, title: str) -> None:
    with pytest.raises(DataError, match=r"item 'i1': .*empty once cleaned"):
        canonical_titles(catalog_of("Night", title), tokenizer)


def test_a_tokenizer_that_changes_text_is_followed_until_it_settles() -> None:
    tokenizer = _lower_case_words("<unk>", "night", "day", "(2)")
    catalog = catalog_of("NIGHT", "Day", "night")
    assert canonical_titles(catalog, tokenizer) == ("night", "day", "night (2)")


def test_titles_a_tokenizer_cannot_tell_apart_are_an_error() -> None:
    from tokenizers import Regex, normalizers

    tokenizer = _lower_case_words("<unk>", "night")
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Replace(Regex(r" \(\d+\)"), "")
    assert canonical_titles(catalog_of("night (1995)"), tokenizer) == ("night",)
    with pytest.raises(DataError, match=r"item 'i1': title 'night' is that of another item too"):
        canonical_titles(catalog_of("night", "night"), tokenizer)


def test_a_title_the_tokenizer_cannot_spell_names_its_item() -> None:
    tokenizer = _lower_case_words("<unk>", "night")
    with pytest.raises(DataError, match=r"item 'i1': title 'day' holds something .* no token for"):
        canonical_titles(catalog_of("night", "day"), tokenizer)


def test_a_title_that_never_settles_names_its_item() -> None:
    from tokenizers import normalizers

    tokenizer = _lower_case_words("<unk>", "a", "night")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("night", "a night")
    with pytest.raises(DataError, match=r"item 'i0': title 'night' changes each time"):
        canonical_titles(catalog_of("night"), tokenizer)


def _lower_case_words(unknown: str, *words: str) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((unknown, *words))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"additional_special_tokens": [SOI, EOI]})
    return tokenizer


def test_a_missing_control_token_is_named() -> None:
    from transformers import PreTrainedTokenizerFast

    backend = _lower_case_words("<unk>", "night").backend_tokenizer
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] != EOI]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=type(backend).from_str(json.dumps(spec)))
    with pytest.raises(TokenizerError, match=f"no special token {EOI}"):
        canonical_titles(catalog_of("night"), tokenizer)


def test_titles_are_the_same_every_time(chatml: Any, titles: tuple[str, ...]) -> None:
    catalog = catalog_of(*titles, *titles, *(f" {title}&nbsp;" for title in titles))
    first = canonical_titles(catalog, chatml)
    assert len(set(first)) == len(catalog)
    assert first == canonical_titles(catalog, chatml)


@pytest.mark.parametrize("domain", ["office", "games"])
def test_real_catalogs_become_items(shared_data: Path, chatml: Any, domain: str) -> None:
    catalog = Catalog.load(shared_data / domain)
    start = time.perf_counter()
    titles = canonical_titles(catalog, chatml)
    tokens = ItemTokens.from_titles(titles, chatml)
    seconds = time.perf_counter() - start
    assert len(set(titles)) == len(catalog)
    trie = tokens.trie()
    assert trie.num_items == len(catalog)
    assert sum(title == item.title for title, item in zip(titles, catalog.items, strict=True)) > (
        0.8 * len(catalog)
    )
    # About three seconds for 17k titles, with room for a busy machine.
    assert seconds < 30


def test_other_names_are_cleaned_like_titles_and_may_be_alike(tokenizer: Any) -> None:
    catalog = catalog_of("Harbour", "Night")
    items = [catalog.item(row) for row in (0, 0, 1, 1)]
    texts = ["Sea  &amp; Land", " ", "Harbour", "Harbour"]
    assert canonical_spellings(items, texts, tokenizer) == [
        "Sea & Land", None, "Harbour", "Harbour"
    ]  # fmt: skip
    assert canonical_spellings([], [], tokenizer) == []


def test_words_with_ampersands_do_not_change(tokenizer: Any) -> None:
    titles = ("Rock &reggae hits", "Q&A &sections", "Copy&copyright", "&lt 3")
    assert canonical_titles(catalog_of(*titles), tokenizer) == titles


class _Counted(tuple[str, ...]):
    """Categories that count how often they are gone through, all together."""

    times = 0

    def __iter__(self) -> Any:
        _Counted.times += 1
        return super().__iter__()


class _Taken(set[str]):
    """Titles that count how often one is looked up."""

    times = 0

    def __contains__(self, title: object) -> bool:
        self.times += 1
        return super().__contains__(title)


def test_work_for_items_of_one_title_grows_with_their_number(chatml: Any) -> None:
    def work(count: int) -> tuple[int, int]:
        """How often categories are gone through, and titles looked up."""
        items = [Item(f"i{row}", "Night", categories=_Counted(("c",))) for row in range(count)]
        _Counted.times = 0
        titles = canonical_titles(Catalog.from_items(items), chatml)
        assert titles == ("Night", *(f"Night ({number})" for number in range(2, count + 1)))
        gone_through = _Counted.times
        taken = _Taken(["Night", "Night (c)", *(f"Night ({n})" for n in range(2, count))])
        found = new_titles(items, taken, chatml)
        assert found == [f"Night ({number})" for number in range(count, 2 * count)]
        return gone_through, taken.times

    small, large = work(200), work(800)
    assert all(few <= many <= 5 * few for few, many in zip(small, large, strict=True))


def test_new_items_are_told_apart_from_thousands_of_their_title(chatml: Any) -> None:
    taken = {"Night", *(f"Night ({number})" for number in range(2, 3000))} - {"Night (2500)"}
    items = [Item("a", "Night"), Item("b", "Night", categories=("Crime",)), Item("c", " Night ")]
    assert new_titles(items, taken, chatml) == ["Night (2500)", "Night (Crime)", "Night (3000)"]


def test_new_titles_a_tokenizer_cannot_tell_apart_are_an_error() -> None:
    from tokenizers import Regex, normalizers

    tokenizer = _lower_case_words("<unk>", "night")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(r" \(.*\)"), "")
    with pytest.raises(DataError, match=r"item 'a': title 'night' is that of another item too"):
        new_titles([Item("a", "night")], {"night"}, tokenizer)


def test_many_names_that_cannot_be_spelled_are_left_out_one_by_one() -> None:
    tokenizer = _lower_case_words("<unk>", "night", "day")
    texts = ["night", "dusk", "", "Day", "\u200b", "dawn"] * 3
    item = Item("a", "night")
    found = canonical_spellings([item] * len(texts), texts, tokenizer)
    assert found == ["night", None, None, "day", None, None] * 3
    assert canonical_spellings([item] * 2, ["dusk", "dawn"], tokenizer) == [None, None]


def _spaced(pre_tokenizer: Any, decoder: Any) -> PreTrainedTokenizerFast:
    """A tokenizer that puts a space of its own before a text."""
    from tokenizers import Tokenizer, models, trainers

    built = Tokenizer(models.BPE(unk_token="?"))
    built.pre_tokenizer, built.decoder = pre_tokenizer, decoder
    texts = ["Dune", "Alien (1979)", " the year 2010, Été, Ñandú and A to Z 3456"]
    letters = sorted({*"".join(texts), *pre_tokenizers.ByteLevel.alphabet(), "▁"})
    trainer: Any = trainers.BpeTrainer
    built.train_from_iterator(
        texts * 9, trainer(vocab_size=340, special_tokens=["?"], initial_alphabet=letters)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=built, unk_token="?")
    tokenizer.add_tokens(["<SOI>", "<EOI>"], special_tokens=True)
    return tokenizer


SPACED = {
    "byte level": (pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()),
    "byte level, whole": (
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        decoders.ByteLevel(),
    ),
    "metaspace": (
        pre_tokenizers.Metaspace(prepend_scheme="always"),
        decoders.Metaspace(prepend_scheme="always"),
    ),
    "metaspace, decoded otherwise": (
        pre_tokenizers.Metaspace(prepend_scheme="always"),
        decoders.Metaspace(prepend_scheme="never"),
    ),
}


@pytest.mark.parametrize("kind", SPACED)
def test_a_space_of_the_tokenizers_own_is_no_part_of_a_title(kind: str, tmp_path: Path) -> None:
    tokenizer = _spaced(*SPACED[kind])
    names = ["Alien (1979)", "Dune", "2010, the year", "(Dune)", "Été", "Alien (1979)", "A <SOI> Z"]
    catalog = Catalog.from_items([Item(f"i{n}", name) for n, name in enumerate(names)], "films")
    tokenizer.save_pretrained(tmp_path)
    for own in (tokenizer, PreTrainedTokenizerFast.from_pretrained(tmp_path)):
        titles = canonical_titles(catalog, own)
        assert titles == (
            "Alien (1979)", "Dune", "2010, the year", "(Dune)", "Été", "Alien (1979) (2)",
            "A < SOI> Z",
        )  # fmt: skip
        items = ItemTokens.from_titles(titles, own)
        soi, _ = control_token_ids(own)
        for row, title in enumerate(titles):
            assert items.decode(row, own) == title
            # What stands in the span of a whole text is the item's row.
            ids = own(f"I liked <SOI>{title}<EOI>, and", add_special_tokens=False)["input_ids"]
            start = ids.index(soi) + 1
            assert ids[start : start + len(items.row(row))] == items.row(row).tolist()


def test_a_tokenizer_that_keeps_no_text_is_refused_by_name() -> None:
    """Each digit is a text of its own, and gets a space."""
    parts = [pre_tokenizers.Digits(individual_digits=True), *SPACED["byte level"][:1]]
    tokenizer = _spaced(pre_tokenizers.Sequence(parts), decoders.ByteLevel())
    with pytest.raises(TokenizerError, match=r"^tokenizer: 'one two \(3\)' comes back from it"):
        canonical_titles(Catalog.from_items([Item("a", "Alien (1979)")], "films"), tokenizer)


def test_only_the_control_tokens_of_the_model_are_broken_up(chatml: Any) -> None:
    tokenizer = copy.deepcopy(chatml)
    control = ControlNames("[item]", "[/item]")
    tokenizer.add_tokens(list(control), special_tokens=True)
    catalog = Catalog.from_items([Item("i0", "The [item] of Rome"), Item("i1", "A [/item]")])
    found = canonical_titles(catalog, tokenizer, control)
    assert found == ("The [ item] of Rome", "A [ /item]")
    assert len(ItemTokens.from_titles(found, tokenizer, control)) == 2
    assert new_titles([Item("i2", "[item]s")], found, tokenizer, control) == ["[ item]s"]
    with pytest.raises(TokenizerError, match=r"has no special token \[span\]"):
        canonical_titles(catalog, tokenizer, ControlNames("[span]", "[/item]"))
