"""Which token each row takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from incatalog.constraint.spans import Allowed, Guidance, SpanBatch, SpanRun
from incatalog.decoding.events import Event
from incatalog.decoding.growing import Answers, Wanted
from incatalog.decoding.lookahead import BEST
from incatalog.decoding.sampling import log_softmax
from incatalog.errors import NOT_NUMBERS, BackboneError, IncatalogError
from incatalog.packed.model import Readout


def rows_of(answers: Answers, wants: Wanted) -> dict[SpanBatch, list[int]]:
    """The growing answers that wait for something, by the batch of spans they belong to."""
    found: dict[SpanBatch, list[int]] = {}
    for row, answer in enumerate(answers):
        if answer.wants == wants and answer.finish_reason is None:
            found.setdefault(answer.spans, []).append(row)
    return found


def open_spans(answers: Answers) -> list[Event]:
    """Opens spans until none is to be opened; one without a choice is written whole at once."""
    events: list[Event] = []
    while opening := rows_of(answers, "span"):
        for spans, rows in opening.items():
            slots = np.array([answers[row].slot for row in rows])
            for row, run in zip(rows, spans.open(slots), strict=True):
                events += answers[row].open(run)
    return events


def decide(
    readout: Readout, answers: Answers, rows: Sequence[int], at: Sequence[int], spans: SpanBatch
) -> list[tuple[SpanRun, list[Event]]]:
    """Takes decisions in item spans: only the tokens that the catalog allows are scored.

    What the model said of an answer is found ``at`` a place of the readout; where the items of an
    answer have weights, it is guided by them. Returned are what each row wrote and the events of
    that.
    """
    slots = np.array([answers[row].slot for row in rows])
    allowed = spans.allowed(slots)
    scores = readout.some([at[row] for row in rows], allowed.tokens)
    mask = torch.from_numpy(allowed.mask).to(scores.device)
    scores = torch.where(mask, scores, -torch.inf)
    guidance = spans.guidance(allowed)
    if guidance is not None:
        guided = torch.from_numpy(guidance.rows).to(scores.device)
        scores[guided] = _guided(scores[guided], guidance)
    logprobs = scores.log_softmax(-1)
    likeliest = logprobs.topk(min(BEST, logprobs.shape[1]))
    best, greedy = (found[:, 0].cpu().numpy() for found in likeliest)
    known = allowed.tokens[likeliest.indices.cpu().numpy()].tolist()
    failed: dict[int, IncatalogError] = {}
    for number, row in enumerate(rows):
        if not np.isfinite(best[number]):
            failed[number] = BackboneError(NOT_NUMBERS)
            continue
        answers[row].lookahead.remember(int(allowed.nodes[number]), known[number])
        if answers[row].request.temperature > 0:
            among = np.flatnonzero(allowed.mask[number])
            of_row = logprobs[number].cpu().numpy()[among]
            try:
                greedy[number] = among[answers[row].sampling.choose(of_row)]
            except IncatalogError as error:
                failed[number] = error
                continue
            best[number] = logprobs[number, greedy[number]]
    good = np.array([number for number in range(len(rows)) if number not in failed], np.int64)
    if failed:
        allowed = Allowed(slots[good], allowed.tokens, allowed.mask[good], allowed.nodes[good])
    runs = dict(zip(good.tolist(), spans.choose(allowed, greedy[good]), strict=True))
    return [
        (SpanRun([], -1), answers[row].fail(failed[number]))
        if number in failed
        else (runs[number], answers[row].take(runs[number], float(best[number])))
        for number, row in enumerate(rows)
    ]


def _guided(
    scores: Float[Tensor, "guided tokens"], guidance: Guidance
) -> Float[Tensor, "guided tokens"]:
    """Scores under the weights of the items; they differ by a constant from logarithms."""
    model, bias = (torch.from_numpy(part).to(scores) for part in guidance[1:])
    # Zero times minus infinity is not a number, where the weights alone decide.
    least = torch.full_like(model, -torch.inf)
    least.masked_fill_(model == 0, torch.finfo(scores.dtype).min)
    return torch.addcmul(bias, model, torch.maximum(scores, least))


def decide_outside(
    readout: Readout, answers: Answers, rows: Sequence[int], item_only: Int64[Tensor, " tokens"]
) -> list[Event]:
    """Takes decisions outside of item spans, over the whole vocabulary."""
    if not rows:
        return []
    scores = readout.full(rows)
    banned = [(number, token) for number, row in enumerate(rows) for token in answers[row].banned()]
    if banned:
        scores[tuple(torch.tensor(banned, device=scores.device).T)] = -torch.inf
    if len(item_only):
        grounded = [number for number, row in enumerate(rows) if answers[row].request.grounded]
        places = torch.tensor(grounded, dtype=torch.int64, device=scores.device)
        scores[places[:, None], item_only.to(scores.device)] = -torch.inf
    best, greedy = scores.max(dim=-1)
    events: list[Event] = []
    sound = best.isfinite().tolist()
    for number, (row, token) in enumerate(zip(rows, greedy.tolist(), strict=True)):
        if not sound[number]:
            events += answers[row].fail(BackboneError(NOT_NUMBERS))
            continue
        if answers[row].request.temperature > 0:
            try:
                token = answers[row].sampling.choose(log_softmax(scores[number].cpu().numpy()))
            except IncatalogError as error:
                events += answers[row].fail(error)
                continue
        events += answers[row].take_text(token)
    return events
