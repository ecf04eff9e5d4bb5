from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest

from incatalog.codes.semantic_ids import SemanticIds, code_names
from incatalog.config import ListForm
from incatalog.data.catalog import Catalog, Item
from incatalog.evaluation.reader import AnswerReader, Named, entries
from incatalog.items.aliases import Aliases
from incatalog.items.titles import canonical_titles
from incatalog.items.tokens import ItemTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# The second and the third share a title; the third is told apart by its category.
CATALOG = Catalog.from_items(
    [
        Item("a", "Harbour"),
        Item("b", "Night Train", categories=("Drama",)),
        Item("c", "Night Train", categories=("Horror",)),
        Item("d", "Sea of Glass (1990)"),
    ]
)
FAMILIES = ["chatml", "gpt2", "llama2", "llama3", "gemma", "sentencepiece"]


class Case:
    def __init__(self, tokenizer: PreTrainedTokenizerFast, list_form: ListForm) -> None:
        self.tokenizer = tokenizer
        self.titles = canonical_titles(CATALOG, tokenizer)
        self.items = ItemTokens.from_titles(self.titles, tokenizer)
        self.reader = AnswerReader(CATALOG, self.titles, self.items, tokenizer, list_form)

    def tokens(self, *pieces: str | int) -> list[int]:
        """Token ids of an answer: control tokens and texts as they are, item rows as spans."""
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                ids += self.items.span(piece)
            elif piece == "<SOI>":
                ids.append(self.items.soi_token_id)
            elif piece == "<EOI>":
                ids.append(self.items.eoi_token_id)
            else:
                ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return ids

    def rows(self, *pieces: str | int, truncated: bool = False) -> list[int | None]:
        return [named.row for named in self.reader.read(self.tokens(*pieces), truncated=truncated)]


@pytest.fixture(scope="module", params=FAMILIES)
def numbered(
    request: pytest.FixtureRequest, chat_tokenizers: dict[str, PreTrainedTokenizerFast]
) -> Case:
    return Case(chat_tokenizers[request.param], "numbered")


@pytest.fixture(scope="module")
def plain(chat_tokenizers: dict[str, PreTrainedTokenizerFast]) -> Case:
    return Case(chat_tokenizers["chatml"], "plain")


def texts(named: Sequence[Named]) -> list[str]:
    return [one.text for one in named]


def test_spans_are_read_in_order(numbered: Case) -> None:
    tokens = numbered.tokens("1. ", 3, "\n2. ", 0, "\n3. ", 2, "\n4. ", 3)
    named = numbered.reader.read(tokens)
    assert [one.row for one in named] == [3, 0, 2, 3]
    assert texts(named) == [numbered.titles[row] for row in (3, 0, 2, 3)]


def test_a_name_in_a_span_that_is_no_title_is_out_of_domain(numbered: Case) -> None:
    assert numbered.rows("1. ", "<SOI>", "Sea of Grass", "<EOI>", "\n2. ", 0) == [None, 0]


def test_the_start_of_a_title_is_no_title(numbered: Case) -> None:
    tokens = numbered.items.span(3)
    assert [one.row for one in numbered.reader.read([*tokens[:-2], tokens[-1]])] == [None]


def test_an_alias_is_its_item_in_a_span_and_on_a_line(numbered: Case) -> None:
    aliases = Aliases((3, 3), ("Glass Sea", "Sea"))
    case = copy.copy(numbered)
    case.reader = AnswerReader(
        CATALOG, case.titles, case.items, case.tokenizer, "numbered", aliases
    )
    span = ItemTokens.from_titles(aliases.texts, case.tokenizer).span(0)
    named = case.reader.read(
        [*case.tokens("1. "), *span, *case.tokens("\n2. Glass Sea\n3. Sea\n4. ", 3)]
    )
    assert [one.row for one in named] == [3, 3, 3, 3]
    # What is written as an alias in a span counts under the title.
    assert named[0].text == case.titles[3]
    assert entries(named) == [3, 3, 3, 3]
    assert case.rows("1. ", "<SOI>", "Sea of", "<EOI>") == [None]


def test_an_empty_span_is_out_of_domain(numbered: Case) -> None:
    assert numbered.rows("<SOI>", "<EOI>", "\n2. ", 1) == [None, 1]


def test_list_lines_without_a_span_count(numbered: Case) -> None:
    named = numbered.reader.read(
        numbered.tokens("Here you are:\n1. Robot Circus\n2. ", 1, "\n3) Harbour\n\nEnjoy them.")
    )
    assert [one.row for one in named] == [None, 1, 0]
    assert texts(named)[0] == "Robot Circus"


def test_bullets_and_quotes_around_a_title_do_not_matter(numbered: Case) -> None:
    assert numbered.rows("- 'Harbour'\n* \"Harbour\"\n- Harbours\n- harbour") == [0, 0, None, None]


def test_a_number_alone_names_nothing(numbered: Case) -> None:
    assert numbered.rows("1. \n2. ", 0, "\n3.") == [0]


def test_two_spans_of_a_line_count_and_its_text_does_not(numbered: Case) -> None:
    assert numbered.rows("1. ", 0, " and its sequel ", 3, ", both great") == [0, 3]


def test_a_shared_title_in_plain_text_is_the_first_item_of_that_title(numbered: Case) -> None:
    assert numbered.rows("1. Night Train\n2. ", 2) == [1, 2]


def test_a_span_that_another_one_interrupts_is_read_as_it_stands(numbered: Case) -> None:
    assert numbered.rows("<SOI>", "Night Tr", 0) == [None, 0]


def test_a_closing_token_without_a_span_is_ignored(numbered: Case) -> None:
    assert numbered.rows("1. ", "<EOI>", 0) == [0]


def test_a_span_left_open_counts_unless_the_answer_was_cut(numbered: Case) -> None:
    pieces = ("1. ", 0, "\n2. ", "<SOI>", "Night")
    assert numbered.rows(*pieces) == [0, None]
    assert numbered.rows(*pieces, truncated=True) == [0]
    assert numbered.rows("1. ", 0, "\n2. Night", truncated=True) == [0]
    assert numbered.rows("1. ", 0, "\n2. Night\n", truncated=True) == [0, None]
    assert numbered.rows("1. ", 0, " and", truncated=True) == [0]


def test_no_tokens_name_nothing(numbered: Case) -> None:
    assert numbered.rows() == []


def test_plain_lists_count_every_line_but_an_introduction(plain: Case) -> None:
    named = plain.reader.read(plain.tokens("My list:\n", 0, "\nRobot Circus\n\nHarbour"))
    assert [one.row for one in named] == [0, None, 0]


def test_another_tokenisation_of_a_title_names_the_item(plain: Case) -> None:
    spelled = [plain.tokenizer.convert_tokens_to_ids(letter) for letter in "Harbour"]
    assert spelled != plain.items.row(0).tolist()
    tokens = [plain.items.soi_token_id, *spelled, plain.items.eoi_token_id]
    assert plain.reader.read(tokens) == (Named("Harbour", 0),)


def test_entries_number_the_names_that_are_no_items() -> None:
    named = [Named("x", None), Named("A", 3), Named("y", None), Named("x", None), Named("A", 3)]
    assert entries(named) == [-1, 3, -2, -1, 3]


CODES = np.array([[0, 1], [1, 0], [1, 1], [0, 0]], dtype=np.int32)


@pytest.fixture(scope="module", params=FAMILIES)
def coded(
    request: pytest.FixtureRequest, chat_tokenizers: dict[str, PreTrainedTokenizerFast]
) -> Case:
    tokenizer = copy.deepcopy(chat_tokenizers[request.param])
    ids = SemanticIds(CODES.copy(), (2, 3))
    tokenizer.add_tokens(list(code_names(ids.sizes)), special_tokens=True)
    case = Case(tokenizer, "numbered")
    case.items = ItemTokens.from_codes(ids, tokenizer)
    case.reader = AnswerReader(CATALOG, case.titles, case.items, tokenizer, "numbered")
    return case


def test_codes_are_read_as_items_and_shown_as_titles(coded: Case) -> None:
    found = coded.reader.read(coded.tokens("1. ", 3, "\n2. ", 0, "\n3. ", 2))
    assert [one.row for one in found] == [3, 0, 2]
    assert [one.text for one in found] == [coded.titles[row] for row in (3, 0, 2)]


def test_codes_of_no_item_count_as_names(coded: Case) -> None:
    unknown = ["<SOI>", "<a_0><b_2>", "<EOI>"]
    assert coded.rows("1. ", *unknown, "\n2. ", 1, "\n3. ", "<SOI>", "<a_1>", "<EOI>") == [
        None,
        1,
        None,
    ]
    # Outside spans too: nothing a model names may go unseen.
    assert coded.rows("1. <a_0><b_1>\n2. <a_0><b_2>\n3. <a_1>\n4. Harbour") == [0, None, None, 0]
