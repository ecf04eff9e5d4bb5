"""What a trained model has to be asked with: `incatalog.json`."""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from incatalog.artifacts import read_json
from incatalog.config import (
    SPEC_FILES,
    AnswerForm,
    HistoryForm,
    ItemForm,
    ListForm,
    Method,
    Projection,
)
from incatalog.errors import BackboneError, DataError
from incatalog.items.tokens import EOI, SOI, ControlNames

SPEC_FILE, _FORMER_SPEC_FILE = SPEC_FILES

_REQUIRED = ("base", "tokenizer_fingerprint")
_LEAST = {"max_history": 1, "list_length": 1, "max_length": 1, "aliases": 0}
_PLAIN = {str: "text", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True)
class ModelSpec:
    """What a trained model has to be asked with; the contents of `incatalog.json`."""

    base: str  # Backbone of an adapter; a folder that starts with a dot is seen from the model's
    method: Method = "cgen"  # Method it was trained with
    item_form: ItemForm = "titles"  # How an item is written inside its span
    code_sizes: tuple[int, ...] = ()  # Number of codes at each level; none for titles
    projection: Projection = "linear"  # What finds items by hidden states, for `ret`
    history_form: HistoryForm = "title"  # How the prompt writes the history
    answer_form: AnswerForm = "span"  # How the answer writes items; see `require_spans`
    list_form: ListForm = "numbered"  # How the answer writes its list
    wording: str = "test-single-turn"  # Name of the wording it is asked with
    system: str = ""  # What its system message says where a conversation brings none
    max_history: int = 10  # Newest items of a history the prompt shows
    list_length: int = 10  # Items in an answer at most, as trained
    max_length: int = 1024  # Tokens of a conversation at most, as trained
    first_share: float = 0.5  # How much its ranking of a list's first place counts behind it
    aliases: int = 0  # Spellings of items besides their titles that it writes; they lie beside it
    soi_token: str = SOI  # What the token that opens an item span is called in its vocabulary
    eoi_token: str = EOI  # And the one that closes it
    trained: bool = True  # On a catalog; others name titles in plain text
    tokenizer_fingerprint: str = ""  # Filled in by `save_model`, checked by `load_model`
    versions: dict[str, str] = field(default_factory=dict)  # Filled in by `save_model`

    @property
    def control(self) -> ControlNames:
        """What the control tokens are called in its vocabulary."""
        return ControlNames(self.soi_token, self.eoi_token)

    def asked(
        self,
        wording: str | None = None,
        system: str | None = None,
        first_share: float | None = None,
    ) -> ModelSpec:
        """The same model, to be asked in other words, with another system message or share.

        None leaves each as it is; an empty system message is none.
        """
        return replace(
            self,
            wording=self.wording if wording is None else wording,
            system=self.system if system is None else system,
            first_share=self.first_share if first_share is None else first_share,
        )


def spec_file(folder: str | Path) -> Path:
    """Where the spec of a model folder stands, or would stand."""
    former = Path(folder) / _FORMER_SPEC_FILE
    path = Path(folder) / SPEC_FILE
    return former if former.exists() and not path.exists() else path


def load_spec(folder: str | Path) -> ModelSpec:
    """Reads `incatalog.json`."""
    path = spec_file(folder)
    if not path.exists():
        raise BackboneError(
            f"{folder}: holds no {SPEC_FILE}; expected the folder of a finished "
            "`incatalog train sft` or `incatalog train merge`"
        )
    try:
        found = read_json(path)
    except (DataError, RecursionError) as error:
        reason = error if isinstance(error, DataError) else f"{path}: nested too deeply"
        raise BackboneError(f"{reason}; restore it or train the model again") from error
    if not isinstance(found, dict):
        raise BackboneError(
            f"{path}: not written by this version of incatalog; train the model again"
        )
    if wrong := _wrong_field(found):
        raise BackboneError(f"{path}: {wrong}; restore it or train the model again")
    return ModelSpec(**(found | {"code_sizes": tuple(found.get("code_sizes", ()))}))


def _wrong_field(found: Mapping[str, Any]) -> str | None:
    """The first field that cannot be used, what stands there, and what should."""
    kinds = typing.get_type_hints(ModelSpec)
    if missing := [name for name in _REQUIRED if name not in found]:
        return f"{missing[0]}: is missing"
    for name, value in found.items():
        if name not in kinds:
            return f"{name}: no such field in this version of incatalog"
        if expected := _expected(value, kinds[name], _LEAST.get(name)):
            return f"{name}: found {reprlib.repr(value)}; expected {expected}"
    if not 0 <= found.get("first_share", 0) < 1:
        return f"first_share: found {found['first_share']}; expected 0 to less than 1"
    if found.get("soi_token", SOI) == found.get("eoi_token", EOI):
        return f"eoi_token: found {found.get('eoi_token', EOI)!r}, which is soi_token too"
    codes = found.get("item_form") == "codes"
    if codes and found.get("method") != "token":
        return f"item_form: found 'codes' beside method {found.get('method')!r}; expected 'token'"
    if codes != bool(found.get("code_sizes")):
        return f"code_sizes: found {found.get('code_sizes')}; expected a number a level for codes"
    return None


def _expected(value: Any, kind: Any, least: int | None) -> str | None:
    """What should stand in a field; None if `value` can."""
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        return None if value in choices else "one of " + ", ".join(map(repr, choices))
    if kind is float:
        return None if type(value) in (int, float) else "a number"
    if kind in _PLAIN:
        # In Python True is an int, but it is no number of items.
        if type(value) is not kind:
            return _PLAIN[kind]
        return f"at least {least}" if least is not None and value < least else None
    if typing.get_origin(kind) is tuple:
        numbers = isinstance(value, list) and all(type(n) is int and n > 0 for n in value)
        return None if numbers else "a list of numbers above 0"
    texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    return None if texts else "texts by their names"


def require_spans(folder: str | Path, spec: ModelSpec) -> None:
    """Refuses a model that writes items as plain titles, where they are to be held to a catalog.

    Raises:
        BackboneError: It was trained so, as a baseline.
    """
    if spec.answer_form == "title":
        raise BackboneError(
            f"{folder}: was trained without control tokens (--answer-form title), so nothing holds "
            "its titles to the catalog; it is a baseline for `incatalog evaluate recommend` alone; "
            "train one with --answer-form span"
        )


def described(spec: ModelSpec) -> str:
    """What to call the model: its method, or that it was never trained."""
    return f"{spec.method} model" if spec.trained else "untrained chat model"


def about(spec: ModelSpec, *, guided: bool) -> str:
    """What a model is and is not, in a sentence."""
    if spec.trained:
        return f"{described(spec)}, trained on a catalog; it names the items itself"
    items = "items come from the guide" if guided else "items are its own guess"
    return f"{spec.base} was never trained on this catalog: {items}; the model only talks"


def untrained_warning(spec: ModelSpec) -> str | None:
    """What to tell those who ask a model that was never trained on a catalog."""
    told = (
        f"warning: {spec.base} was never trained on a catalog: in chat it names titles in plain "
        "text, which nothing holds to the catalog; train it first: "
        f"incatalog train sft --model {spec.base} --data FOLDER --out FOLDER"
    )
    return None if spec.trained else told
