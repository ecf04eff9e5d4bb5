from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.errors import BackboneError, ConfigError
from incatalog.evaluation.plain_text import TitleReader, load_plain, text_requests
from incatalog.evaluation.recommend import evaluate_recommend
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.grpo.settings import GrpoSettings
from incatalog.grpo.train_grpo import train_grpo
from incatalog.items.aliases import Aliases
from incatalog.model.saved import load_model, save_model
from incatalog.model.spec import ModelSpec
from incatalog.recommender.items import ModelItems
from incatalog.recommender.recommender import Recommender

if TYPE_CHECKING:
    from incatalog.config import ListForm
    from incatalog.model.backbone import Backbone

CATALOG = Catalog.from_items(
    [
        Item("a", "Harbour"),
        Item("b", "Night Train", categories=("Drama",)),
        Item("c", "Night Train", categories=("Horror",)),
        Item("d", "2001: A Sea of Glass (1990)"),
        Item("e", "Ship - a Tale"),
    ]
)


def reader(backbone: Backbone, list_form: ListForm = "numbered", **more: Any) -> TitleReader:
    return TitleReader(ModelItems.of(backbone.tokenizer, "titles", CATALOG, **more), list_form)


def read(
    own: TitleReader, backbone: Backbone, text: str, *, truncated: bool = False
) -> list[tuple[str, int | None]]:
    ids = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [(one.text, one.row) for one in own.read(ids, truncated=truncated)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1. Harbour", ("Harbour", 0)),
        ("2)  HARBOUR. ", ("HARBOUR", 0)),
        ("- 'night   train'", ("night   train", 1)),
        ("3. **Harbour** (1971), by nobody", ("Harbour", 0)),
        ('• "Night Train", a film', ("Night Train", 1)),
        ("4. Harbour: a quiet place", ("Harbour", 0)),
        ("5. Harbour – a quiet place", ("Harbour", 0)),
        # Colon, dash and number belong to these titles.
        ("6. 2001: A Sea of Glass (1990)", ("2001: A Sea of Glass (1990)", 3)),
        ("2001: A Sea of Glass (1990)", ("2001: A Sea of Glass (1990)", 3)),
        ("7. Ship - a Tale - and more", ("Ship - a Tale - and more", None)),
        ("7. Ship - a Tale", ("Ship - a Tale", 4)),
        # Compatible characters are one; whatever else differs is another title.
        ("8. Ｈａｒｂｏｕｒ", ("Ｈａｒｂｏｕｒ", 0)),
        ("8. Harbours", ("Harbours", None)),
        ("8. **Harbours** - the film", ("Harbours", None)),
        ("8. The Harbour", ("The Harbour", None)),
        ("9. ...", ("9. ...", None)),
    ],
)
def test_a_line_is_an_item_if_it_equals_a_title(
    tiny_backbone: Backbone, line: str, expected: tuple[str, int | None]
) -> None:
    assert read(reader(tiny_backbone), tiny_backbone, line) == [expected]


def test_lines_that_are_entries_depend_on_the_form_of_lists(tiny_backbone: Backbone) -> None:
    text = "Here you are:\n\n1. Harbour\nNight Train\n* Nowhere\nEnjoy!"
    numbered, plain = reader(tiny_backbone), reader(tiny_backbone, "plain")
    listed = [("Harbour", 0), ("Nowhere", None)]
    assert read(numbered, tiny_backbone, text) == listed
    assert read(plain, tiny_backbone, text) == [
        listed[0], ("Night Train", 1), listed[1], ("Enjoy!", None)
    ]  # fmt: skip
    # A line that is cut off may be the beginning of another title.
    assert read(numbered, tiny_backbone, "1. Harbour\n2. Night", truncated=True) == listed[:1]
    assert read(numbered, tiny_backbone, "I know none.") == []


def test_control_tokens_are_silent_and_aliases_are_names(tiny_backbone: Backbone) -> None:
    named = reader(tiny_backbone, aliases=Aliases((0,), ("Port",)))
    assert read(named, tiny_backbone, "1. port\n2. <SOI>Harbour<EOI>") == [
        ("port", 0),
        ("Harbour", 0),
    ]


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(0, 4), max_size=8), form=st.sampled_from(["numbered", "plain"]))
def test_what_a_training_writes_is_read_back(
    tiny_backbone: Backbone, rows: list[int], form: ListForm
) -> None:
    from incatalog.dialogue.render import Text
    from incatalog.dialogue.tasks import list_parts

    own = reader(tiny_backbone, form)
    titles = ModelItems.of(tiny_backbone.tokenizer, "titles", CATALOG).catalog.titles_t
    parts = list_parts(rows, form, titles)
    text = "".join(part.text for part in parts if isinstance(part, Text))
    assert [row for _, row in read(own, tiny_backbone, text)] == rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """Twelve users with five items each."""
    catalog = Catalog.from_items([Item(f"i{row}", title) for row, title in enumerate(titles)])
    rng = np.random.default_rng(5)
    lists = [rng.permutation(len(titles))[:5].tolist() for _ in range(12)]
    folder = tmp_path_factory.mktemp("data")
    catalog.save(folder)
    Histories.from_lists([f"u{user}" for user in range(12)], lists).save(folder, catalog)
    return folder


@pytest.fixture(scope="module")
def plain(plain_chat_model: Path) -> Path:
    """A chat model as Hugging Face has it."""
    return plain_chat_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path, plain: Path) -> Path:
    """A model that was trained without control tokens, on one item a line."""
    from incatalog.training.settings import SftSettings
    from incatalog.training.sft import train_sft

    out = tmp_path_factory.mktemp("trained") / "run"
    return train_sft(
        SftSettings(
            model=str(plain), data=data, out=out, answer_form="title", list_form="plain",
            tune="full", max_length=256, epochs=40, batch_size=12, learning_rate=1e-2,
            validate_every=0, checkpoint_every=500, device="cpu", wording="test-as-trained",
        )
    )  # fmt: skip


def evaluated(
    out: Path, model: object, data: Path, **more: Any
) -> tuple[dict[str, Any], pl.DataFrame]:
    config = EvaluateRecommendSettings(
        model=str(model), data=data, out=out, device="cpu", **{"bootstrap": 100, "k": 3, **more}
    )
    evaluate_recommend(config)
    return json.loads((out / "summary.json").read_text()), pl.read_parquet(out / "users.parquet")


def expected_texts(recommender: Recommender, data: Path, room: int) -> list[str]:
    """What transformers generates for each user, control tokens left out."""
    catalog = Catalog.load(data)
    split = leave_one_out(Histories.load(data, catalog))
    model, tokenizer = recommender.backbone.model, recommender.backbone.tokenizer
    texts = []
    for user in range(len(split)):
        history = split.test(user).history.tolist()
        messages = recommender.prompts.messages(history, 3)
        prompt = torch.from_numpy(recommender.renderer.prompt(messages)).long()[None]
        written = model.generate(
            prompt, do_sample=False, max_new_tokens=room,
            attention_mask=torch.ones_like(prompt),
            suppress_tokens=[recommender.backbone.soi_token_id, recommender.backbone.eoi_token_id],
            eos_token_id=sorted(recommender.prompts.stop_token_ids), pad_token_id=0,
        )[0, prompt.shape[1] :]  # fmt: skip
        text = tokenizer.decode(written, skip_special_tokens=True)
        cut = written[-1].item() not in recommender.prompts.stop_token_ids
        texts.append(text.rpartition("\n")[0] if cut else text)
    return texts


@pytest.mark.long
def test_training_without_control_tokens_learns_plain_lists(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    _, spec = load_model(trained, "cpu")
    assert (spec.answer_form, spec.history_form, spec.list_form) == ("title", "title", "plain")
    summary, users = evaluated(tmp_path / "out", trained, data)
    assert (summary["method"], summary["decode"]) == ("plain titles", "free text")
    own = load_plain(_settings(trained, data), Catalog.load(trained), "cpu")
    titles = {title.casefold(): row for row, title in enumerate(own.catalog.titles_t)}
    answers = [
        [line.strip() for line in text.split("\n") if line.strip()]
        for text in expected_texts(own, data, 200)
    ]
    assert users["named"].to_list() == answers
    targets = [leave_one_out(Histories.load(data, own.catalog)).test(u).target for u in range(12)]
    rows = [[titles.get(name.casefold()) for name in answer] for answer in answers]
    hits = [float(target in found[:3]) for target, found in zip(targets, rows, strict=True)]
    assert users["HR@3"].to_list() == hits
    outside = [np.mean([row is None for row in found[:3]]) for found in rows if found]
    assert summary["metrics"]["OOD@3"]["value"] == pytest.approx(np.mean(outside))
    # It has learnt to write titles of the catalog, and nothing forces it to.
    assert summary["metrics"]["OOD@3"]["value"] < 0.5


def test_an_untrained_model_is_read_as_it_writes(plain: Path, data: Path, tmp_path: Path) -> None:
    summary, users = evaluated(tmp_path / "out", plain, data, max_new_tokens=20)
    assert (summary["method"], summary["decode"]) == ("untrained", "free text")
    assert summary["users"] == len(users) == 12
    own = load_plain(_settings(plain, data), Catalog.load(data), "cpu")
    assert not own.spec.trained
    read_back = TitleReader(own.items, "numbered")
    for text, named in zip(expected_texts(own, data, 20), users["named"].to_list(), strict=True):
        ids = own.backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert [one.text for one in read_back.read(ids)] == named
    listed, _ = evaluated(tmp_path / "list", plain, data, decode="list", exclude_seen=True)
    assert (listed["method"], listed["decode"]) == ("untrained", "list")
    assert listed["metrics"]["OOD@3"]["value"] == 0


def test_answers_are_bounded(plain: Path, data: Path) -> None:
    own = load_plain(_settings(plain, data), Catalog.load(data), "cpu")
    asked = own.list_request([0, 1], 3)
    [free] = text_requests(own, [asked], None)
    assert (free.max_items, free.scaffold, free.max_new_tokens) == (0, None, asked.max_new_tokens)
    assert [one.max_new_tokens for one in text_requests(own, [asked], 7)] == [7]
    context = own.prompts.context_length
    assert context is not None
    [most] = text_requests(own, [asked], 10**6)
    assert most.max_new_tokens == context - len(asked.prompt_ids)
    full = replace(asked, prompt_ids=[0] * context)
    with pytest.raises(ConfigError, match=f"--max-history: .*{context} tokens.*show fewer items"):
        list(text_requests(own, [full], None))


def _settings(model: Path, data: Path) -> EvaluateRecommendSettings:
    return EvaluateRecommendSettings(model=str(model), data=data, out=data / "unused")


@pytest.mark.parametrize(
    ("which", "changes", "message"),
    [
        ("trained", {"decode": "beam"}, "--decode beam: .*writes plain text; leave it out"),
        ("trained", {"exclude_seen": True}, "--exclude-seen: .*leave it out"),
        ("plain", {"exclude_seen": True}, "--exclude-seen: .*leave it out"),
        ("plain", {"index": "x"}, "--index x: .* writes titles; leave it out"),
        ("plain", {"guide_weight": 0.5}, "--guide-weight: nothing can be guided"),
        ("plain", {"decode": "list", "max_new_tokens": 9}, "--max-new-tokens 9: is about unconstr"),
        ("popularity", {"max_new_tokens": 9}, "--max-new-tokens 9: is about unconstrained"),
        ("popularity", {"decode": "unconstrained"}, "--decode unconstrained: .*no language model"),
    ],
)
def test_settings_without_a_meaning_are_refused(
    which: str,
    changes: dict[str, Any],
    message: str,
    data: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    model = which if which == "popularity" else request.getfixturevalue(which)
    with pytest.raises(ConfigError, match=message):
        evaluated(tmp_path / "out", model, data, **changes)


def test_nothing_else_takes_a_model_without_control_tokens(
    own_tiny_backbone: Backbone, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_model(folder, own_tiny_backbone, ModelSpec(base="tiny", answer_form="title"))
    Catalog.load(data).save(folder)
    refused = "baseline for `incatalog evaluate recommend` alone"
    with pytest.raises(BackboneError, match=refused):
        Recommender.from_pretrained(folder, "cpu")
    with pytest.raises(BackboneError, match=refused):
        train_grpo(GrpoSettings(model=folder, data=data, out=tmp_path / "grpo", device="cpu"))


def test_a_checkpoint_of_a_training_is_no_plain_model(
    plain: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint-4"
    shutil.copytree(plain, folder)
    (folder / "trainer_state.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"neither a trained model .* nor a run of"):
        evaluated(tmp_path / "out", folder, data)
