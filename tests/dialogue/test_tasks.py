from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from incatalog.data.conversations import Turn
from incatalog.dialogue.render import ControlToken, ItemRef, Message, Renderer, Text
from incatalog.dialogue.tasks import (
    alignment_messages,
    first_exchange,
    fit_history,
    fit_turns,
    general_messages,
    list_parts,
    num_tokens,
    recommend_messages,
    with_exchange,
)
from incatalog.dialogue.templates import AlignmentWording, Wording, wordings
from incatalog.errors import ConfigError, DataError

WORDING = Wording("w", "I saw {history}; give me {item_count}.")
TITLES = ("A", "B {history}", "C <SOI>", "D")


def said(message: Message) -> str:
    names = {Text: lambda p: p.text, ItemRef: lambda p: f"#{p.row}", ControlToken: lambda p: "@"}
    return "".join(names[type(part)](part) for part in message.parts)


def test_a_request_with_titles_and_its_numbered_answer() -> None:
    asked, answered = recommend_messages(WORDING, [0, 1, 2], 2, [3, 0], TITLES)
    assert (asked.role, answered.role) == ("user", "assistant")
    assert said(asked) == "I saw 'A' → 'B {history}' → 'C <SOI>'; give me 2."
    assert said(answered) == "1. #3\n2. #0"


def test_a_request_with_spans_and_its_plain_answer() -> None:
    asked, answered = recommend_messages(
        WORDING, [0, 2], 2, [3, 0], TITLES, history_form="span", list_form="plain"
    )
    assert said(asked) == "I saw #0 → #2; give me 2."
    assert said(answered) == "#3\n#0"


def test_a_request_without_answer_with_opening_and_candidates() -> None:
    wording = Wording("w", "{history}|{candidates}|{item_count}", ("Hello.", "Hi."))
    messages = recommend_messages(wording, [0], 1, None, TITLES, candidates=[3, 0])
    assert [m.role for m in messages] == ["user", "assistant", "user"]
    assert [said(m) for m in messages] == ["Hello.", "Hi.", "'A'|'D', 'A'|1"]


def test_only_the_wording_itself_may_mention_control_tokens() -> None:
    wording = Wording("w", "{history} in <SOI> and <EOI>, {item_count}")
    (asked,) = recommend_messages(wording, [2], 1, None, TITLES)
    assert said(asked) == "'C <SOI>' in @ and @, 1"


def test_every_wording_makes_messages() -> None:
    for stage in ("train", "test"):
        for candidates in (None, [1, 2]):
            for wording in wordings(
                stage, mention_control_tokens=True, candidates=candidates is not None
            ):
                messages = recommend_messages(
                    wording, [0, 3], 7, [1], TITLES, candidates=candidates
                )
                assert "'A' → 'D'" in said(messages[-2])
                assert "7 different items" in said(messages[-2])


def test_candidates_and_wording_must_agree() -> None:
    with pytest.raises(ConfigError, match="takes no candidates"):
        recommend_messages(WORDING, [0], 1, None, TITLES, candidates=[1])
    with pytest.raises(ConfigError, match="needs candidates"):
        recommend_messages(wordings("train", candidates=True)[0], [0], 1, None, TITLES)


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("form", ["title", "span"])
def test_histories_are_cut_oldest_first_and_only_as_far_as_needed(
    renderers: dict[str, Renderer], titles: tuple[str, ...], answered: bool, form: Any
) -> None:
    renderer = renderers["llama3"]
    history = [5, 1, 40, 7, 22, 9, 30]

    def build(rows: Sequence[int]) -> tuple[Message, ...]:
        answer = [3, 4] if answered else None
        return recommend_messages(WORDING, rows, 2, answer, titles, form)

    lengths = [num_tokens(renderer, build(history[cut:])) for cut in range(len(history))]
    assert lengths == sorted(lengths, reverse=True)
    for limit in range(lengths[-1], lengths[0] + 2):
        messages, cut = fit_history(renderer, build, history, limit)
        expected = next(c for c, length in enumerate(lengths) if length <= limit)
        assert cut == expected
        assert messages == build(history[expected:])
    with pytest.raises(ConfigError, match=f"--max-length {lengths[-1] - 1}"):
        fit_history(renderer, build, history, lengths[-1] - 1)


def test_the_limit_counts_the_generation_prompt(
    renderers: dict[str, Renderer], titles: tuple[str, ...]
) -> None:
    messages = recommend_messages(WORDING, [1], 2, None, titles)
    assert num_tokens(renderers["gemma"], messages) == len(renderers["gemma"].prompt(messages))


CHAT = (
    Turn("system", "Be brief."),
    Turn("user", "Hello"),
    Turn("assistant", "Hi <EOI>"),
    Turn("user", "Why?"),
    Turn("assistant", "Because."),
)


def test_general_conversations_are_text() -> None:
    messages = general_messages(CHAT)
    assert [m.role for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[2].parts == (Text("Hi <EOI>"),)
    assert [said(m) for m in first_exchange(CHAT)] == ["Hello", "Hi <EOI>"]
    with pytest.raises(DataError, match="no user message"):
        first_exchange(CHAT[2:4])


def test_exchanges_come_before_or_after_a_recommendation() -> None:
    system = Message("system", (Text("s"),))
    exchange = first_exchange(CHAT)
    answered = recommend_messages(WORDING, [0], 1, [3], TITLES)
    assert with_exchange(answered, exchange, before=True) == (*exchange, *answered)
    assert with_exchange(answered, exchange, before=False) == (*answered, *exchange)
    assert with_exchange((system, *answered), exchange, before=True)[0] == system
    asked = recommend_messages(WORDING, [0], 1, None, TITLES)
    assert with_exchange(asked, exchange, before=True) == (*exchange, *asked)
    with pytest.raises(DataError, match="no answer"):
        with_exchange(asked, exchange, before=False)


def test_long_conversations_lose_their_newest_exchanges(renderers: dict[str, Renderer]) -> None:
    renderer = renderers["chatml"]
    messages = general_messages(CHAT)
    whole, first = num_tokens(renderer, messages), num_tokens(renderer, messages[:3])
    assert fit_turns(renderer, messages, whole) == (messages, 0)
    assert fit_turns(renderer, messages, whole - 1) == (messages[:3], 2)
    assert fit_turns(renderer, messages, first) == (messages[:3], 2)
    assert fit_turns(renderer, messages, first - 1) == ((), 5)


def test_alignment_asks_for_an_item_by_its_text_or_for_its_title() -> None:
    wording = AlignmentWording("w", "{text} <- which?", "{item}")
    asked, answered = alignment_messages(wording, 2, "C: {item} <SOI>", "C")
    assert (asked.role, answered.role) == ("user", "assistant")
    assert said(asked) == "C: {item} <SOI> <- which?"
    assert said(answered) == "#2"
    asked, answered = alignment_messages(AlignmentWording("w", "{item}?", "{title}!"), 2, "", "C")
    assert said(asked) == "#2?"
    assert said(answered) == "C!"


def test_indented_lists_are_those_of_the_published_code() -> None:
    parts = list_parts([2, 0, 1], "indented")
    assert said(Message("assistant", parts)) == "1. #2\n 2. #0\n 3. #1"
