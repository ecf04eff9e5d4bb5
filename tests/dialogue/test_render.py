from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.dialogue.render import ControlToken, ItemRef, Message, Renderer, Text
from incatalog.errors import CatalogError, DataError, TokenizerError
from incatalog.items.tokens import ControlNames, ItemTokens

FAMILIES = ("chatml", "gpt2", "llama2", "llama3", "gemma", "sentencepiece")
WITH_SYSTEM = ("chatml", "gpt2", "llama2", "llama3", "sentencepiece")
MARKERS = (
    *("<SOI>", "<EOI>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<s>", "</s>", "<unk>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<|user|>", "<|assistant|>", "<a_1>", "<b_2>"),
)


def user(*parts: Any) -> Message:
    return Message("user", tuple(Text(p) if isinstance(p, str) else p for p in parts))


def assistant(*parts: Any) -> Message:
    return Message("assistant", tuple(Text(p) if isinstance(p, str) else p for p in parts))


def plain(messages: list[Message]) -> list[dict[str, str]]:
    return [
        {"role": m.role, "content": "".join(p.text for p in m.parts if isinstance(p, Text))}
        for m in messages
    ]


space = st.text(alphabet=" \n\t", max_size=3)
words = st.text(
    alphabet=st.one_of(
        st.sampled_from("abcHN 1290.'\"!?()\n"), st.sampled_from("øéñ你🎬\t\u00a0\u200b\u0301")
    ),
    max_size=12,
)
benign = st.builds(lambda a, b, c: a + b + c, space, words, space)


@pytest.mark.parametrize("family", FAMILIES)
@given(texts=st.lists(st.tuples(benign, benign), min_size=1, max_size=3), last=benign)
@settings(max_examples=60, deadline=None)
def test_benign_conversations_have_the_ids_of_the_chat_template(
    renderers: dict[str, Renderer],
    chat_tokenizers: dict[str, Any],
    family: str,
    texts: list[tuple[str, str]],
    last: str,
) -> None:
    messages = [m for asked, answer in texts for m in (user(asked), assistant(answer))]
    tokenizer, renderer = chat_tokenizers[family], renderers[family]
    expected = tokenizer.apply_chat_template(plain(messages), return_dict=False)
    assert renderer.conversation(messages).input_ids.tolist() == expected

    messages.append(user(last))
    expected = tokenizer.apply_chat_template(
        plain(messages), add_generation_prompt=True, return_dict=False
    )
    assert renderer.prompt(messages).tolist() == expected


@pytest.mark.parametrize("family", WITH_SYSTEM)
@given(system=benign, asked=benign)
@settings(max_examples=30, deadline=None)
def test_system_messages_have_the_ids_of_the_chat_template(
    renderers: dict[str, Renderer],
    chat_tokenizers: dict[str, Any],
    family: str,
    system: str,
    asked: str,
) -> None:
    if family == "llama2" and not system.strip():
        # This template looks whether there is a system text at all.
        system = "x" + system
    messages = [Message("system", (Text(system),)), user(asked)]
    expected = chat_tokenizers[family].apply_chat_template(
        plain(messages), add_generation_prompt=True, return_dict=False
    )
    assert renderers[family].prompt(messages).tolist() == expected


def test_a_template_without_system_role_gets_its_text_before_the_first_user_message(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any]
) -> None:
    messages = [Message("system", (Text("Be brief."),)), user("Hello")]
    expected = chat_tokenizers["gemma"].apply_chat_template(
        [{"role": "user", "content": "Be brief.\n\nHello"}],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert renderers["gemma"].prompt(messages).tolist() == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_adjacent_texts_are_one_text(renderers: dict[str, Renderer], family: str) -> None:
    whole = renderers[family].prompt([user("Harbour Lights, a film")])
    parts = renderers[family].prompt([user("Har", "bour L", "", "ights, a fi", "lm")])
    assert parts.tolist() == whole.tolist()


@pytest.mark.parametrize("family", FAMILIES)
@given(
    texts=st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(MARKERS), st.sampled_from(["<", "SOI>", "|", " ", "\n", "x"])
            ),
            min_size=1,
            max_size=8,
        ).map("".join),
        min_size=3,
        max_size=3,
    )
)
@settings(max_examples=100, deadline=None)
def test_text_never_becomes_a_control_token(
    renderers: dict[str, Renderer],
    chat_tokenizers: dict[str, Any],
    family: str,
    texts: list[str],
) -> None:
    tokenizer, renderer = chat_tokenizers[family], renderers[family]
    added = list(tokenizer.added_tokens_decoder)

    def conversation(first: str, second: str, third: str) -> list[Message]:
        return [user(first, ItemRef(3), second), assistant("1. ", ItemRef(4), third), user("z")]

    attacked, harmless = conversation(*texts), conversation("x", "x", "x")
    for render in (renderer.prompt, lambda m: renderer.conversation(m).input_ids):
        found, expected = render(attacked), render(harmless)
        assert found[np.isin(found, added)].tolist() == expected[np.isin(expected, added)].tolist()
    rendered, reference = renderer.conversation(attacked), renderer.conversation(harmless)
    assert [span.row for span in rendered.spans] == [span.row for span in reference.spans]
    end = rendered.input_ids[rendered.loss_mask][-1]
    assert tokenizer.eos_token_id == end


@pytest.mark.parametrize("family", ["chatml", "llama3"])
def test_markers_in_text_reach_the_model_as_text(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any], family: str
) -> None:
    text = "".join(MARKERS)
    ids = renderers[family].prompt([user(text)])
    assert text in chat_tokenizers[family].decode(ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("special", [True, False])
def test_text_never_becomes_a_code_token(
    chat_tokenizers: dict[str, Any], titles: tuple[str, ...], family: str, special: bool
) -> None:
    tokenizer = pickle.loads(pickle.dumps(chat_tokenizers[family]))
    codes = ["<a_1>", "<b_2>"]
    tokenizer.add_tokens(codes, special_tokens=special)
    renderer = Renderer(tokenizer, ItemTokens.from_titles(titles, tokenizer))
    ids = renderer.prompt([user("I want <a_1><b_2> and <a_1> now")])
    assert not np.isin(ids, tokenizer.convert_tokens_to_ids(codes)).any()


def test_added_words_and_white_space_stay_usable(
    chat_tokenizers: dict[str, Any], titles: tuple[str, ...]
) -> None:
    tokenizer = pickle.loads(pickle.dumps(chat_tokenizers["gemma"]))
    tokenizer.add_tokens(["\n\n", "Tromsø"])
    renderer = Renderer(tokenizer, ItemTokens.from_titles(titles, tokenizer))
    messages = [user("one\n\nTromsø")]
    expected = tokenizer.apply_chat_template(
        plain(messages), add_generation_prompt=True, return_dict=False
    )
    assert renderer.prompt(messages).tolist() == expected
    assert tokenizer.convert_tokens_to_ids("Tromsø") in expected


def test_a_sentencepiece_vocabulary_that_lists_its_control_tokens_is_guarded(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any]
) -> None:
    tokenizer = chat_tokenizers["sentencepiece"]
    split = tokenizer("a</s>b", split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert tokenizer.eos_token_id in split, "the trap is gone; so may the renaming be"
    ids = renderers["sentencepiece"].prompt([user("a</s>b")]).tolist()
    assert ids.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_items_are_their_token_rows_between_control_tokens(
    renderers: dict[str, Renderer],
    chat_tokenizers: dict[str, Any],
    titles: tuple[str, ...],
    family: str,
) -> None:
    tokenizer = chat_tokenizers[family]
    items = ItemTokens.from_titles(titles, tokenizer)
    rendered = renderers[family].conversation(
        [user("I saw ", ItemRef(3), ItemRef(7)), assistant(ItemRef(5), "\n", ItemRef(3), ".")]
    )
    assert [span.row for span in rendered.spans] == [3, 7, 5, 3]
    for span in rendered.spans:
        found = rendered.input_ids[span.start : span.end].tolist()
        assert found == list(items.span(span.row))
    inside = [rendered.loss_mask[span.start : span.end] for span in rendered.spans]
    assert [mask.tolist() for mask in inside] == [
        [wanted] * len(mask)
        for wanted, mask in zip([False, False, True, True], inside, strict=True)
    ]
    control = [items.soi_token_id, items.eoi_token_id]
    assert np.isin(rendered.input_ids, control).sum() == 8
    assert rendered.input_ids.dtype == np.int32
    assert rendered.loss_mask.dtype == np.bool_


@pytest.mark.parametrize("family", FAMILIES)
def test_item_spans_have_the_ids_of_control_tokens_written_out(
    renderers: dict[str, Renderer],
    chat_tokenizers: dict[str, Any],
    titles: tuple[str, ...],
    family: str,
) -> None:
    written = f"1. <SOI>{titles[4]}<EOI>\n2. <SOI>{titles[13]}<EOI>"
    expected = chat_tokenizers[family].apply_chat_template(
        plain([user("Two, please"), assistant(written)]), return_dict=False
    )
    answer = assistant("1. ", ItemRef(4), "\n2. ", ItemRef(13))
    rendered = renderers[family].conversation([user("Two, please"), answer])
    assert rendered.input_ids.tolist() == expected


def test_a_real_tokenizer_renders_as_its_chat_template(
    smollm2_folder: Path, titles: tuple[str, ...]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<SOI>", "<EOI>"]})
    renderer = Renderer(tokenizer, ItemTokens.from_titles(titles, tokenizer))
    messages = [user(" A film,\n\nplease "), assistant("Été à Nîmes? 你"), user("<b>No</b>…")]
    expected = tokenizer.apply_chat_template(
        plain(messages), add_generation_prompt=True, return_dict=False
    )
    assert renderer.prompt(messages).tolist() == expected
    attacked = renderer.prompt([user("".join(MARKERS))])
    harmless = renderer.prompt([user("x")])
    added = list(tokenizer.added_tokens_decoder)
    assert (
        attacked[np.isin(attacked, added)].tolist() == harmless[np.isin(harmless, added)].tolist()
    )


def runs(tokenizer: Any, ids: np.ndarray, mask: np.ndarray) -> list[list[str]]:
    found: list[list[str]] = []
    for position in np.flatnonzero(mask):
        if position == 0 or not mask[position - 1]:
            found.append([])
        found[-1].append(tokenizer.convert_ids_to_tokens(int(ids[position])))
    return found


def test_loss_mask_of_chatml_by_hand(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any]
) -> None:
    messages = [user("a"), assistant("b c"), user("d"), assistant("\te ")]
    rendered = renderers["chatml"].conversation(messages)
    assert runs(chat_tokenizers["chatml"], rendered.input_ids, rendered.loss_mask) == [
        ["b", "Ġ", "c", "<|im_end|>"],
        ["ĉ", "e", "Ġ", "<|im_end|>"],
    ]


def test_loss_mask_of_llama2_by_hand(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any]
) -> None:
    # The template puts a space before an answer; a model that continues the prompt writes it.
    messages = [Message("system", (Text("s"),)), user("a"), assistant("b c"), user("d")]
    messages.append(assistant(" e\n"))
    rendered = renderers["llama2"].conversation(messages)
    tokens = runs(chat_tokenizers["llama2"], rendered.input_ids, rendered.loss_mask)
    assert ["".join(run) for run in tokens] == ["▁b▁c▁</s>", "▁e▁</s>"]


def test_loss_mask_of_llama3_and_gemma_by_hand(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any]
) -> None:
    messages = [user("a"), assistant(" b c\n"), user("d"), assistant("e")]
    for family, expected in (
        ("llama3", ["bĠc<|eot_id|>", "e<|eot_id|>"]),
        ("gemma", ["b▁c<end_of_turn>", "e<end_of_turn>"]),
        ("sentencepiece", ["▁b▁c<0x0A></s>", "e</s>"]),
    ):
        rendered = renderers[family].conversation(messages)
        tokens = runs(chat_tokenizers[family], rendered.input_ids, rendered.loss_mask)
        assert ["".join(run) for run in tokens] == expected, family


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_answer_trains_the_end_of_the_turn_only(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any], family: str
) -> None:
    tokenizer = chat_tokenizers[family]
    rendered = renderers[family].conversation([user("a"), assistant("")])
    tokens = runs(tokenizer, rendered.input_ids, rendered.loss_mask)
    assert [run[-1] for run in tokens] == [tokenizer.eos_token]
    assert not "".join(tokens[0][:-1]).strip("▁")


@pytest.mark.parametrize("family", FAMILIES)
@given(answer=words.filter(lambda text: text.strip() == text and text))
@settings(max_examples=30, deadline=None)
def test_what_is_trained_continues_the_prompt(
    renderers: dict[str, Renderer], family: str, answer: str
) -> None:
    question = [user("What next?")]
    rendered = renderers[family].conversation([*question, assistant(answer, ItemRef(1))])
    first = int(rendered.loss_mask.argmax())
    assert rendered.input_ids[:first].tolist() == renderers[family].prompt(question).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_of_wordings_open_no_span(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any], family: str
) -> None:
    rendered = renderers[family].conversation(
        [user("between ", ControlToken("<SOI>"), " and ", ControlToken("<EOI>"), ItemRef(2))]
    )
    control = chat_tokenizers[family].convert_tokens_to_ids(["<SOI>", "<EOI>"])
    found = [i for i in rendered.input_ids.tolist() if i in control]
    assert found == [*control, *control]
    assert [span.row for span in rendered.spans] == [2]


def test_the_order_of_roles_is_cached_but_not_the_words(renderers: dict[str, Renderer]) -> None:
    renderer = renderers["chatml"]
    first = renderer.prompt([user("Harbour")]).tolist()
    assert renderer.prompt([user("Zebra")]).tolist() != first
    assert renderer.prompt([user("Harbour")]).tolist() == first


def test_what_is_cached_of_white_space_and_long_conversations_is_bounded(
    renderers: dict[str, Renderer],
) -> None:
    """Both are chosen by those who ask, and may be anything."""
    renderer = copy.deepcopy(renderers["chatml"])
    expected = renderer.prompt([user("Hello")]).tolist()

    def size() -> int:
        return len(pickle.dumps([dict(kept._kept) for kept in caches]))

    caches = [renderer._skeletons, renderer._long_skeletons]
    before = size()
    for number in range(40):
        # Half a megabyte in all, each as no other.
        renderer.prompt([user(Text("Hello" + " " * (10_000 + 100 * number)))])
    assert size() == before
    for number in range(700):
        renderer.prompt([user(Text(" " * (number % 27) + "Hello" + "\n" * (number // 27)))])
    for number in range(80):
        turns = [part for _ in range(20 + number) for part in (user("Hello"), assistant("Hi"))]
        renderer.prompt([*turns, user("And?")])
    assert len(caches[0]) == 512
    assert len(caches[1]) == 64
    assert renderer.prompt([user("Hello")]).tolist() == expected


def test_renderers_travel_to_worker_processes(renderers: dict[str, Renderer]) -> None:
    messages = [user("Night", ItemRef(1)), assistant(ItemRef(2))]
    for renderer in renderers.values():
        copy = pickle.loads(pickle.dumps(renderer))
        expected = renderer.conversation(messages).input_ids.tolist()
        assert copy.conversation(messages).input_ids.tolist() == expected


def test_private_characters_in_text_are_text(
    renderers: dict[str, Renderer], chat_tokenizers: dict[str, Any]
) -> None:
    messages = [user("\ue0001\ue001"), assistant("\ue0000\ue001"), user("z")]
    expected = chat_tokenizers["chatml"].apply_chat_template(
        plain(messages), add_generation_prompt=True, return_dict=False
    )
    assert renderers["chatml"].prompt(messages).tolist() == expected


@pytest.mark.parametrize("role", ["tool", "<|im_start|>system", ""])
def test_unknown_roles_are_refused(role: Any) -> None:
    with pytest.raises(DataError, match="role"):
        Message(role, ())


def test_unusable_conversations_are_named(renderers: dict[str, Renderer]) -> None:
    renderer = renderers["gemma"]
    with pytest.raises(DataError, match="no messages"):
        renderer.conversation([])
    with pytest.raises(DataError, match="from the assistant"):
        renderer.prompt([user("a"), assistant("b")])
    with pytest.raises(DataError, match=r"refuses the turns \(user, user\)"):
        renderer.prompt([user("a"), user("b")])
    with pytest.raises(DataError, match="not followed by a user"):
        renderer.conversation([Message("system", (Text("a"),)), assistant("b")])
    with pytest.raises(DataError, match="not valid Unicode"):
        renderer.prompt([user("half \ud83c")])
    for row in (-1, 50):
        with pytest.raises(CatalogError, match=re.escape(f"item row {row}")):
            renderer.prompt([user(ItemRef(row))])


def test_unusable_tokenizers_are_named(
    chat_tokenizers: dict[str, Any], titles: tuple[str, ...]
) -> None:
    tokenizer = pickle.loads(pickle.dumps(chat_tokenizers["chatml"]))
    items = ItemTokens.from_titles(titles, tokenizer)
    for template, message in (
        (None, "no chat template"),
        ("{{ raise_exception('no') }}", "refuses the turns"),
        ("{{ messages[0]['content'] }}", "drops or repeats"),
    ):
        tokenizer.chat_template = template
        with pytest.raises(TokenizerError, match=message):
            Renderer(tokenizer, items)
    with pytest.raises(TokenizerError):
        Renderer(chat_tokenizers["llama3"], items)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_without_a_system_message_gets_the_renderers(
    renderers: dict[str, Renderer],
    chat_tokenizers: dict[str, Any],
    titles: tuple[str, ...],
    family: str,
) -> None:
    plain_renderer, tokenizer = renderers[family], chat_tokenizers[family]
    items = ItemTokens.from_titles(titles, tokenizer)
    said = "Be brief, <SOI>."
    renderer = Renderer(tokenizer, items, said)
    system, own = Message("system", (Text(said),)), Message("system", (Text("Be long."),))
    answer = Message("assistant", (ItemRef(3),))
    for turns in ([user("A")], [user("A"), answer, user("B")]):
        expected = plain_renderer.prompt([system, *turns])
        assert renderer.prompt(turns).tolist() == expected.tolist()
        assert expected.tolist() != plain_renderer.prompt(turns).tolist()
        told = renderer.prompt([own, *turns]).tolist()
        assert told == plain_renderer.prompt([own, *turns]).tolist()
    rendered = renderer.conversation([user("A"), answer])
    expected_whole = plain_renderer.conversation([system, user("A"), answer])
    assert rendered.spans == expected_whole.spans
    assert rendered.loss_mask.tolist() == expected_whole.loss_mask.tolist()
    with_other_items = renderer.with_items(ItemTokens.from_titles(titles[:9], tokenizer))
    assert with_other_items.prompt([user("A")]).tolist() == renderer.prompt([user("A")]).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_go_by_the_names_of_the_model(
    chat_tokenizers: dict[str, Any], titles: tuple[str, ...], family: str
) -> None:
    tokenizer = copy.deepcopy(chat_tokenizers[family])
    control = ControlNames("[item]", "</item>")
    tokenizer.add_tokens(list(control), special_tokens=True)
    items = ItemTokens.from_titles(titles, tokenizer, control)
    ids = tokenizer.convert_tokens_to_ids(list(control))
    assert (items.soi_token_id, items.eoi_token_id) == tuple(ids)
    assert items.control(tokenizer) == control
    renderer = Renderer(tokenizer, items)
    parts = (ControlToken("<SOI>"), Text(" and "), ControlToken("<EOI>"), Text(" [item]"))
    rendered = renderer.conversation([user(*parts), assistant(ItemRef(4))])
    [span] = rendered.spans
    own = rendered.input_ids.tolist()
    assert own[span.start : span.end] == items.span(4)
    # Those of the wording, and those of the item; the text in the message is none.
    assert [token for token in own if token in ids] == [*ids, *ids]
    ours = tokenizer.convert_tokens_to_ids(["<SOI>", "<EOI>"])
    assert not set(ours) & set(own)


def test_a_template_that_writes_a_control_token_is_refused(
    chat_tokenizers: dict[str, Any], titles: tuple[str, ...]
) -> None:
    control = ControlNames("<|im_start|>", "<EOI>")
    tokenizer = chat_tokenizers["chatml"]
    items = ItemTokens.from_titles(titles, tokenizer, control)
    with pytest.raises(TokenizerError, match=r"its chat template writes <\|im_start\|>, which"):
        Renderer(tokenizer, items)
