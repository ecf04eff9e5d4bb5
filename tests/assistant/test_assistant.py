from __future__ import annotations

import re
from typing import Any

import pytest

from incatalog import Recommender
from incatalog.assistant.assistant import Assistant
from incatalog.data.where import Where
from incatalog.errors import CatalogError, ContextLengthError, DataError, NoItemLeftError
from incatalog.recommender.answer import Recommendation


@pytest.fixture(scope="module")
def assistant(untrained: Recommender) -> Assistant:
    return Assistant.of(untrained)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def ids(answer: Any) -> list[str]:
    return [item.item_id for item in answer.items]


def test_a_list_stands_in_a_frame_with_reasons(assistant: Assistant) -> None:
    assert assistant.voice == "facts"
    answer = assistant.answer([user("What should I watch?")], history=["f0"], k=3)
    assert ids(answer) == ["f1", "f2", "f3"]
    first, empty, *entries, blank, last = answer.text.split("\n")
    assert "Star Wars (1977)" in first
    assert (empty, blank) == ("", "")
    assert entries == [
        f"{place}. {item.title} – {item.reason}" for place, item in enumerate(answer.items, 1)
    ]
    assert answer.items[0].reason == "Because you liked Star Wars (1977): both are Sci-Fi."
    assert last
    assert answer.finish_reason == "items"
    # What is linked besides the items is where it says.
    assert {answer.text[one.start : one.end] for one in answer.mentions} == {"Star Wars (1977)"}
    assert answer.invented == 0


def test_the_pieces_of_a_stream_are_the_answer(assistant: Assistant) -> None:
    asked: Any = {"messages": [user("three films please")], "history": ["f5"]}
    answer = assistant.answer(**asked)
    assert len(answer.items) == 3
    pieces = list(assistant.stream(**asked))
    assert "".join(p.title if isinstance(p, Recommendation) else p for p in pieces) == answer.text
    assert [p for p in pieces if isinstance(p, Recommendation)] == list(answer.items)


def test_the_conversation_says_whether_and_how_many(assistant: Assistant) -> None:
    assert len(assistant.answer([user("something to watch")]).items) == 5
    assert assistant.answer([user("Thanks!")]).items == ()
    assert assistant.answer([user("Thanks!")], k=2).items != ()
    assert "7" not in assistant.answer([user("What can you do?")]).text
    assert "8 items of films" in assistant.answer([user("What can you do?")]).text


def test_an_answer_is_explained_by_what_is_known(assistant: Assistant) -> None:
    asked = user("What should I watch?")
    answer = assistant.answer([asked], history=["f0"], k=3)
    talk = [asked, answer.message]
    why = assistant.answer([*talk, user("Why the first one?")], history=["f0"])
    known = "Alien (1979): Horror and Sci-Fi, from 1971."
    assert why.text == f"{known} Because you liked Star Wars (1977): both are Sci-Fi."
    assert why.items == ()
    assert [one.row for one in why.mentions] == [1, 0]
    who = assistant.answer([user("Who directed Alien?")])
    assert who.text == f"{known} The catalog says no more of it."
    assert "not recommended anything" in assistant.answer([user("Why?")]).text


def test_answers_that_come_back_as_text_are_known(assistant: Assistant) -> None:
    """Clients of OpenAI's format keep the text of an answer, and no items."""
    asked = user("What should I watch?")
    answer = assistant.answer([asked], history=["f0"], k=3)
    told = {"role": "assistant", "content": answer.text}
    for say in ("Why the second one?", "I have seen the first two.", "Something else, please."):
        as_text = assistant.answer([asked, told, user(say)], history=["f0"], k="auto")
        as_items = assistant.answer([asked, answer.message, user(say)], history=["f0"], k="auto")
        assert (as_text.text, as_text.items) == (as_items.text, as_items.items)
    assert as_text.items
    assert not set(ids(as_text)) & set(ids(answer))


def test_whether_the_catalog_has_something(assistant: Assistant) -> None:
    yes = assistant.answer([user("Do you have Alien?")])
    assert yes.text == "Yes: Alien (1979): Horror and Sci-Fi, from 1971."
    assert (yes.items, [one.row for one in yes.mentions]) == ((), [1])
    lacking = assistant.answer([user("Is Alien in stock?")])
    assert lacking.text.startswith("The catalog has no stock levels, so I could not go by them. Al")
    no = assistant.answer([user("Is The Matrix in there?")], k="auto")
    assert no.text.startswith("No title in the catalog is like that. ")
    assert no.items
    assert "Matrix" not in no.text


def test_half_a_sentence_goes_on_from_the_wish_before_it(assistant: Assistant) -> None:
    asked = user("a film")
    answer = assistant.answer([asked], k=2)
    assert assistant.answer([asked, answer.message, user("with aliens in space")]).items
    assert assistant.answer([user("with aliens in space")]).filters == ()


def test_what_is_said_becomes_filters_that_can_be_taken_off(assistant: Assistant) -> None:
    answer = assistant.answer([user("a comedy please")])
    assert ids(answer) == ["f5", "f6"]
    [only] = answer.filters
    assert (only.id, only.label) == ("category=Comedy", "Comedy")
    assert answer.items[0].reason is not None
    assert answer.items[0].reason.startswith("Comedy, as you asked")
    assert "no more than these" in answer.text
    off = assistant.answer([user("a comedy please")], filters_off=[only.id])
    assert off.filters == ()
    assert len(off.items) == 5
    none = assistant.answer([user("a comedy please")], where=Where.from_flags(["year<1972"]))
    assert none.items == ()
    assert none.text == (
        "Nothing in the catalog is Comedy. Take one of the filters off, and ask again."
    )
    assert len(assistant.answer([user("a comedy please")], steer=False).items) == 5


def test_a_limit_that_the_catalog_knows_nothing_of_is_said(assistant: Assistant) -> None:
    answer = assistant.answer([user("two films under 20 euros please")])
    said = "The catalog has no prices, so I could not go by them. "
    assert answer.text.startswith(said)
    assert (len(answer.items), answer.filters) == (2, ())
    both = assistant.answer([user("a comedy under 20 euros, rated at least 4 stars")])
    assert both.text.startswith("The catalog has no prices or ratings, so I could not go by them.")
    assert ids(both) == ["f5", "f6"]


def test_both_ends_of_a_range_are_told_as_one(assistant: Assistant) -> None:
    answer = assistant.answer([user("films from 1971 to 1973 please")])
    assert ids(answer) == ["f1", "f2", "f3"]
    assert [one.id for one in answer.filters] == ["year>=1971", "year<=1973"]
    assert "from 1971 to 1973" in answer.text.splitlines()[0].casefold()
    assert "from 1971 and" not in answer.text
    one = assistant.answer([user("films from 1971 to 1973 please")], filters_off=["year>=1971"])
    assert ids(one)[0] == "f0"


def test_nothing_that_was_shown_or_is_known_comes_again(assistant: Assistant) -> None:
    asked = user("two films please")
    first = assistant.answer([asked])
    assert ids(first) == ["f0", "f1"]
    again = assistant.answer([asked, first.message, user("two more films please")])
    assert ids(again) == ["f2", "f3"]
    liked = assistant.answer([user("I liked Alien. What now?")], k=2)
    assert ids(liked)[0] == "f0"
    assert "f1" not in ids(liked)
    assert "mentioned Alien (1979)" in str(liked.items[0].reason)
    # Who speaks ill of an item is not said to like it.
    hated = assistant.answer([user("I hated Alien. What now?")], k=2)
    assert all("Alien" not in str(item.reason) for item in hated.items)


def test_ids_that_the_catalog_has_not_are_listed_or_refused(assistant: Assistant) -> None:
    asked: Any = {"messages": [user("a film")], "history": ["gone", "f0", "lost"], "k": 1}
    answer = assistant.answer(**asked)
    assert answer.unknown == ("gone", "lost")
    assert ids(answer) == ["f1"]
    with pytest.raises(CatalogError, match=r"^history: .*'gone'; leave it out"):
        assistant.answer(**asked, unknown="error")


def test_a_long_conversation_goes_on_without_its_oldest_turns(assistant: Assistant) -> None:
    long = [turn for n in range(60) for turn in (
        user(f"turn {n} " + "harbour lights " * 12), {"role": "assistant", "content": "Yes."},
    )]  # fmt: skip
    answer = assistant.answer([*long, user("a film please")], k=1)
    assert answer.left_out > 0
    assert answer.left_out % 2 == 0
    assert len(answer.items) == 1
    with pytest.raises(ContextLengthError, match="tokens"):
        assistant.answer([user("harbour lights " * 3000)], k=1)


def test_a_limit_of_tokens_holds_for_the_frame_too(assistant: Assistant) -> None:
    encode = assistant.recommender.backbone.tokenizer.encode
    whole = assistant.answer([user("a film please")], k=3)
    for most in (3, 30, 80):
        answer = assistant.answer([user("a film please")], k=3, max_new_tokens=most)
        assert answer.finish_reason == "length"
        assert whole.text.startswith(answer.text) or len(answer.items) < 3
        assert len(encode(answer.text, add_special_tokens=False)) <= most + 1


def test_talk_names_nothing_that_is_no_item(assistant: Assistant) -> None:
    """A random model writes whatever; of it only sentences without inventions are told."""
    answer = assistant.answer([user("What is 12 times 7?")], temperature=1.0, seed=3)
    assert answer.items == ()
    assert answer.text
    assert all(one.row is not None for one in assistant.names(answer.text, []))


def test_the_model_speaks_where_it_is_told_to(assistant: Assistant) -> None:
    answer = assistant.answer([user("a film please")], k=2, voice="model")
    assert ids(answer) == ["f0", "f1"]
    # A random model ends no sentence in thirty tokens; then the facts speak.
    assert all(item.reason for item in answer.items)
    assert re.search(r"(?m)^2\. Alien \(1979\) – ", answer.text)


def test_what_cannot_be_answered_says_why(assistant: Assistant) -> None:
    with pytest.raises(DataError, match="one from the user"):
        assistant.answer([{"role": "assistant", "content": "help"}])
    with pytest.raises(NoItemLeftError, match="no item left"):
        assistant.answer([user("a film")], exclude=[f"f{row}" for row in range(8)], k=1)


@pytest.mark.parametrize(
    "asked",
    [
        "I loved Star Trek: First Contact (1996). Recommend me two, please.",
        "I loved Alien (1979) and Young Frankenstein (1974). What is next?",
        "I liked Airplane! and Star Wars, what next?",
    ],
)
def test_words_of_a_title_that_was_named_are_no_wish(assistant: Assistant, asked: str) -> None:
    answer = assistant.answer([user(asked)])
    assert answer.items
    assert "in mind" not in answer.text


def test_what_the_catalog_does_not_mention_is_said(assistant: Assistant) -> None:
    answer = assistant.answer([user("a comedy with Tom Hanks, please")])
    assert answer.text.startswith("The catalog knows nothing of a name that you gave, so this is ")
    # A name that is no item's is not repeated.
    assert "in mind" not in answer.text
    assert "Hanks" not in answer.text


def test_words_beside_a_filter_are_told(assistant: Assistant) -> None:
    answer = assistant.answer([user("a comedy for a rainy day")])
    assert "You asked for Comedy; with “rainy” and “day” in mind, " in answer.text


def test_what_is_to_be_avoided_is_told(assistant: Assistant) -> None:
    answer = assistant.answer([user("something with a toy, she hates wars")])
    assert answer.text.startswith("With “toy” in mind and away from “wars”, these five come ")
    answer = assistant.answer([user("recommend something, but no wars please")])
    assert answer.text.startswith("Away from “wars”, these five come closest:")
    # No item has such a word, so nothing was kept away from it.
    answer = assistant.answer([user("recommend something, but no gherkins please")])
    assert "gherkins" not in answer.text


def test_what_was_asked_before_does_not_hide_a_name(assistant: Assistant) -> None:
    first = assistant.answer([user("no horror please")])
    said = [user("no horror please"), {"role": "assistant", "content": first.text}]
    answer = assistant.answer([*said, user("Do you know The Matrix?")])
    assert "No title in the catalog is like that." in answer.text


def test_of_a_list_the_first_is_the_choice(assistant: Assistant) -> None:
    asked = [user("three films please")]
    first = assistant.answer(asked)
    said = [*asked, {"role": "assistant", "content": first.text}]
    answer = assistant.answer([*said, user("Which one would you pick?")])
    title = first.items[0].title
    assert answer.text.startswith(f"Of these I would take the first, which fits best. {title}")
    assert answer.items == ()
    answer = assistant.answer([*said, user("Which one would you pick, the third or the second?")])
    assert first.items[1].title in answer.text
    # Without a list there is nothing to choose from.
    assert assistant.answer([user("Which one would you pick?")]).items
