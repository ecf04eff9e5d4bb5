from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.conftest import FILMS
from incatalog import Recommender
from incatalog.assistant.invented import names_in
from incatalog.assistant.known_names import KnownNames


@pytest.fixture(scope="module")
def known(untrained: Recommender) -> KnownNames:
    return KnownNames(untrained.items)


@pytest.mark.parametrize(
    ("text", "invented"),
    [
        ("Inception is a film about dreams.", ["Inception"]),
        ("You should watch The Dark Knight tonight.", ["The Dark Knight"]),
        ("The Dark Knight is great.", ["The Dark Knight"]),
        ('Try "Avatar" or "the end".', ["Avatar"]),
        ("1. **Casablanca** - a love story\n2. Jaws", ["Casablanca", "Jaws"]),
        ("- Pulp Fiction: crime", ["Pulp Fiction"]),
        ("I recommend Avatar (2009) and Alien (1979).", ["Avatar (2009)"]),
        ("Have you seen Vertigo, my friend?", ["Vertigo"]),
        ("In Lord of the Rings, a ring is lost.", ["Lord of the Rings"]),
        ("He said 'Enjoy the Show' to me.", ["Enjoy the Show"]),
    ],
)
def test_what_looks_like_a_name_and_is_none(
    known: KnownNames, text: str, invented: list[str]
) -> None:
    found = names_in(text, known)
    assert [text[one.start : one.end] for one in found if one.row is None] == invented


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("I liked Star Wars and Alien a lot.", [0, 1]),
        ("The Godfather is a classic, so is Heat (1995).", [2, 3]),
        ('"Star Trek: First Contact" it is', [4]),
        ("Godfather, The (1972) – Crime and Drama.", [2]),
        ("of Star Trek: First Contact (1996), the film", [4]),
        ("Try **Young Frankenstein**!", [6]),
        ("Try Heat (1995). Watch Alien (1979)!", [3, 1]),
    ],
)
def test_items_are_found_by_their_titles_and_what_is_left_of_them(
    known: KnownNames, text: str, rows: list[int]
) -> None:
    assert [one.row for one in names_in(text, known)] == rows


@pytest.mark.parametrize(
    "text",
    [
        "Hello! How can I help you today?",
        "I like Comedy and Horror, and Sci-Fi too.",
        "It was directed by Stanley Kubrick in 1980.",
        "My name is Anna.",
        "As an AI, I can't say. Ask me on Monday!",
        "2. Comedy: funny films",
        "- Ask me for a genre",
        "Sure, I'd love to. Thanks for asking!",
        "Watching films is fun.",
        "12 times 7 is 84.",
        "",
    ],
)
def test_prose_without_names_has_none(known: KnownNames, text: str) -> None:
    assert names_in(text, known) == []


@given(st.text("abc .,!?\n", max_size=30), st.text("xyz .,", max_size=30))
def test_a_quoted_title_is_its_item_wherever_it_stands(
    known: KnownNames, before: str, after: str
) -> None:
    title = FILMS[0][0]
    text = f'{before} "{title}" {after}'
    found = [one for one in names_in(text, known) if one.row == 0]
    assert [text[one.start : one.end] for one in found] == [title]


@given(st.text(st.characters(blacklist_categories=("Lu", "Lt", "Cs"), max_codepoint=0x2FF)))
def test_places_are_in_order_and_within_the_text(known: KnownNames, text: str) -> None:
    at = 0
    for one in names_in(text, known):
        assert at <= one.start < one.end <= len(text)
        at = one.end
