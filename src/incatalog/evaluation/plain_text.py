"""Models that name items in plain text, which nothing holds to a catalog: baselines.

These are chat models that were never trained on a catalog, and models that were trained without
control tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from incatalog.data.catalog import Catalog
from incatalog.errors import ConfigError
from incatalog.evaluation.reader import Named
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.model.spec import ModelSpec, load_spec, spec_file

if TYPE_CHECKING:
    from incatalog.config import ListForm
    from incatalog.decoding.request import Request
    from incatalog.recommender.items import ModelItems
    from incatalog.recommender.recommender import Recommender

PACKAGED = "smollm2"

_ENTRY = re.compile(r"\s*(?:\d+\s*[.):]|[-*•–])\s+(\S.*)")
# What is in bold or in quotes at the beginning of an entry.
_MARKED = re.compile(r"(\*\*|__|[\"“«`])(?P<name>.+?)(?:\*\*|__|[\"”»`])")
# What stands between a title and what is said about it.
_DESCRIPTION = re.compile(r"\s+[-–—]\s+|:\s+")
_AROUND = "'\"`*_“”‘’«».,; \t"


def is_plain_model(model: str) -> bool:
    """Whether the flag names a chat model as Hugging Face has it, which no training here made."""
    folder = Path(model)
    # A checkpoint lies inside a run, and is no model to be asked yet.
    others = spec_file(folder), folder / "trainer_state.json"
    is_folder = (folder / "config.json").exists() and not any(path.exists() for path in others)
    return model == PACKAGED or is_folder


def writes_plain_text(model: str) -> bool:
    """Whether the flag names a model that was trained to write items as plain titles."""
    return spec_file(model).exists() and load_spec(model).answer_form == "title"


def load_plain(settings: EvaluateRecommendSettings, catalog: Catalog, device: str) -> Recommender:
    """Loads a model of either kind, without a guide, on a catalog."""
    from incatalog.items.aliases import Aliases
    from incatalog.model.backbone import load_plain_backbone
    from incatalog.model.saved import load_model
    from incatalog.packed.model import PackedModel
    from incatalog.recommender.recommender import Recommender

    model, aliases = settings.model, None
    if is_plain_model(model):
        backbone = load_plain_backbone(model, device, verify=settings.verify)
        spec = _plain_spec(model, backbone.model)
    else:
        backbone, spec = load_model(model, device, verify=settings.verify)
        own = Catalog.load(model)
        if own.fingerprint == catalog.fingerprint:
            catalog, aliases = own, Aliases.load(model, own, spec.aliases)
    packed = PackedModel(backbone.model, frozen=True)
    return Recommender(backbone, spec, catalog, aliases=aliases, packed=packed)


def text_requests(
    recommender: Recommender, requests: Sequence[Request], max_new_tokens: int | None
) -> Iterator[Request]:
    """Requests for lists as such for plain text, by default with as much room."""
    context = recommender.prompts.context_length
    for request in requests:
        room = max_new_tokens or request.max_new_tokens
        if context is not None:
            left = context - len(request.prompt_ids)
            if left < 1:
                raise ConfigError(
                    f"--max-history: the prompt takes {len(request.prompt_ids)} tokens, and the "
                    f"model reads and writes {context} in all; show fewer items"
                )
            room = min(room, left)
        # With no item to name, control tokens cannot come, and all else can.
        yield replace(
            request, scaffold=None, max_items=0, weights=None, excluded=None, max_new_tokens=room
        )


class TitleReader:
    """Reads the titles that an answer in plain text lists.

    An entry is a line with a number or a bullet; of a model that writes plain lists, every line
    that does not end with a colon. It is an item of the catalog if one of these equals its title or
    an alias, tried in this order: the line, the line without number or bullet, what that begins
    with in bold or in quotes, and what stands before its first colon or dash. Compared are texts in
    NFKC, without case, with single spaces, and without quotes, asterisks and punctuation around
    them. An entry that is no item is outside the catalog; of items with one title it is the first.
    """

    def __init__(self, items: ModelItems, list_form: ListForm) -> None:
        """Takes the items, and how the model was trained to write a list."""
        catalog, aliases = items.catalog, items.aliases
        self._tokenizer, self._list_form = items.tokenizer, list_form
        self._row_of: dict[str, int] = {}
        named = zip(aliases.rows, aliases.texts, strict=True)
        for names in (enumerate(catalog.titles_t), enumerate(catalog.titles), named):
            for row, name in names:
                self._row_of.setdefault(normalised(name), int(row))
        self._row_of.pop("", None)

    def read(self, token_ids: Sequence[int], *, truncated: bool = False) -> tuple[Named, ...]:
        """What one answer names; a line that is cut off names nothing yet."""
        text = str(self._tokenizer.decode(token_ids, skip_special_tokens=True))
        lines = text.split("\n")
        if truncated:
            lines.pop()
        found = (self._named(line.strip()) for line in lines)
        return tuple(named for named in found if named is not None)

    def _named(self, line: str) -> Named | None:
        listed = _ENTRY.fullmatch(line)
        if listed is None and (self._list_form != "plain" or not line or line.endswith(":")):
            return None
        entry = line if listed is None else listed[1]
        marked = _MARKED.match(entry)
        name = entry if marked is None else marked["name"]
        for one in (line, entry, name, _DESCRIPTION.split(entry, maxsplit=1)[0]):
            row = self._row_of.get(normalised(one))
            if row is not None:
                return Named(one.strip(_AROUND), row)
        return Named(name.strip(_AROUND) or line, None)


def normalised(title: str) -> str:
    """A title as it is compared."""
    folded = unicodedata.normalize("NFKC", title).casefold()
    return " ".join(folded.split()).strip(_AROUND)


def _plain_spec(model: str, network: object) -> ModelSpec:
    """How a model that was never trained is asked."""
    from incatalog.dialogue.templates import PLAIN_WORDING

    spec = ModelSpec(base=model, trained=False, wording=PLAIN_WORDING.name)
    context = getattr(getattr(network, "config", None), "max_position_embeddings", None)
    return spec if context is None else replace(spec, max_length=min(spec.max_length, context))
