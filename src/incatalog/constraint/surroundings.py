"""What surrounds a logits processor in transformers' `generate`.

A processor is handed token ids and scores, not the mode of decoding and not the other processors,
and both decide what it can promise. They stand on the call stack, which is looked at when a
generation begins and when something is wrong, never in an ordinary step.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessorList

from incatalog.errors import ConfigError

_DEPTH = 40
_MODULE = "transformers.generation."
# Scores of some thousands divided by less are infinite in float32.
_LEAST_TEMPERATURE = 1e-30
# Beam search marks what it must not return by -1e9, which is lost beside scores as large.
_LEAST_TEMPERATURE_OF_BEAMS = 1e-3
# What makes numbers of a sequence to which nothing is allowed, or fails on it.
_NEED_SCORES = {
    "TopHLogitsWarper",
    "EtaLogitsWarper",
    "SynthIDTextWatermarkLogitsProcessor",
    "LogitNormalization",
}
# All that transformers puts behind: it changes scores, and frees nothing that is banned.
_HARMLESS = _NEED_SCORES | {
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "MinPLogitsWarper",
    "TypicalLogitsWarper",
    "EpsilonLogitsWarper",
    "WatermarkLogitsProcessor",
}
# What bans tokens on its own, and the option of `generate` that makes it.
_OPTIONS = {
    "NoRepeatNGramLogitsProcessor": "no_repeat_ngram_size",
    "EncoderNoRepeatNGramLogitsProcessor": "encoder_no_repeat_ngram_size",
    "NoBadWordsLogitsProcessor": "bad_words_ids",
    "SequenceBiasLogitsProcessor": "sequence_bias",
    "MinLengthLogitsProcessor": "min_length",
    "MinNewTokensLengthLogitsProcessor": "min_new_tokens",
    "ForcedBOSTokenLogitsProcessor": "forced_bos_token_id",
    "ForcedEOSTokenLogitsProcessor": "forced_eos_token_id",
    "SuppressTokensLogitsProcessor": "suppress_tokens",
    "SuppressTokensAtBeginLogitsProcessor": "begin_suppress_tokens",
}


class Mode(Enum):
    """How the sequences of a call are continued."""

    SAMPLE = "sample"  # each by one token, the best or a sample
    BEAMS = "beams"  # the best of all continuations are kept; improbable ones fill up
    DRAFT = "draft"  # they are proposals for another call to accept
    VERIFY = "verify"  # proposals are looked at, the later ones before the earlier are accepted
    UNKNOWN = "unknown"  # the caller is not transformers


_MODES = {"_sample": Mode.SAMPLE, "_beam_search": Mode.BEAMS, "_assisted_decoding": Mode.VERIFY}


@dataclass(frozen=True)
class Surroundings:
    """Who calls a logits processor, and which others are called with it."""

    mode: Mode = Mode.UNKNOWN  # how the sequences are continued
    beams: int = 1  # sequences that compete, one behind the other; 1 outside of beam search
    samples: bool = False  # beams are drawn, which needs one of them to be possible
    before: tuple[Any, ...] = ()  # processors that have changed the scores already
    behind: tuple[Any, ...] = ()  # processors that will change them still
    foreign: bool = False  # the sequences are those of a draft model with a tokenizer of its own

    @classmethod
    def look(cls) -> Surroundings:
        """The surroundings of the processor whose `__call__` asks."""
        frame = sys._getframe(1)
        mode, beams, samples, foreign = Mode.UNKNOWN, 1, False, False
        processors: Sequence[Any] | None = None
        current: Any = None
        for _ in range(_DEPTH):
            if frame.f_back is None:
                break
            frame = frame.f_back
            if not str(frame.f_globals.get("__name__", "")).startswith(_MODULE):
                continue
            name, values = frame.f_code.co_name, frame.f_locals
            if processors is None and isinstance(values.get("self"), LogitsProcessorList):
                processors, current = values["self"], values.get("processor")
            if mode is Mode.UNKNOWN and name in _MODES:
                mode = _MODES[name]
                if mode is Mode.BEAMS:
                    beams, samples = int(values["num_beams"]), bool(values["do_sample"])
            if name == "get_candidates":
                mode = Mode.DRAFT
                drafter = type(values.get("self")).__name__
                foreign = "DifferentTokenizers" in drafter or "Universal" in drafter
        known = tuple(processors or ())
        place = next((place for place, one in enumerate(known) if one is current), None)
        around = ((), ()) if place is None else (known[:place], known[place + 1 :])
        return cls(mode, beams, samples, *around, foreign)

    @property
    def needs_scores(self) -> bool:
        """Whether a processor behind needs a token that may follow in every sequence."""
        return any(type(processor).__name__ in _NEED_SCORES for processor in self.behind)

    def check(self, eoi_token_id: int) -> None:
        """Refuses what is known to undo a constraint, before it does."""
        if self.foreign:
            raise ConfigError(
                "assistant_model: has a tokenizer of its own, whose tokens cannot be held to the "
                "items'; use one with the same tokenizer, or none"
            )
        for processor in self.behind:
            name = type(processor).__name__
            if name not in _HARMLESS and not hasattr(processor, "holds_to_items"):
                raise ConfigError(
                    f"logits_processor: {name} stands behind the item constraint and could undo "
                    "it; put it in front"
                )
        # A draft model divides by the target's temperature and by its own.
        warpers = [p for p in self.behind if type(p).__name__ == "TemperatureLogitsWarper"]
        temperature = math.prod(float(warper.temperature) for warper in warpers)
        least = _LEAST_TEMPERATURE_OF_BEAMS if self.mode is Mode.BEAMS else _LEAST_TEMPERATURE
        if not least <= temperature < math.inf:
            given = warpers[0].temperature
            raise ConfigError(
                f"temperature: found {given}; expected a finite number well above {least}; for "
                "the best token use do_sample=False"
            )
        for processor in self.before:
            if type(processor).__name__ == "SuppressTokensLogitsProcessor":
                banned = torch.as_tensor(processor.suppress_tokens).flatten().tolist()
                if eoi_token_id in banned:
                    raise ConfigError(
                        f"suppress_tokens: bans token {eoi_token_id}, which closes item spans, so "
                        "that no item could end; leave it out"
                    )

    def culprits(
        self, ids: Int[Tensor, "1 length"], allowed: Sequence[int], width: int
    ) -> list[str]:
        """Which options ban a token that an item could go on with; else whose code may have."""
        found = []
        flat = torch.zeros(1, width, device=ids.device)
        for processor in self.before:
            option = _OPTIONS.get(type(processor).__name__)
            if option is not None:
                scores: Float[Tensor, "1 vocab"] = processor(ids, flat.clone())
                if bool((scores[0, list(allowed)] == -torch.inf).any()):
                    found.append(option)
        others = [p for p in self.before if not type(p).__module__.startswith(_MODULE)]
        return found or [type(processor).__name__ for processor in others]
