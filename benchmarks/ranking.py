"""How much does decoding a list token by token cost beside ranking every item exactly?

For each user, all items not in the history are scored with their exact probability as the first
item of the answer, and the best ten set beside the ten of the greedy list. Items whose first token
is not among the likeliest are left out; they cannot reach the first ten in practice.

    python -m benchmarks.ranking [--demo runs/demo] [--users 315]
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.report import markdown, publish

from reclm.data.catalog import Catalog
from reclm.data.interactions import Histories, leave_one_out
from reclm.evaluation.metrics import hit_rate, ndcg
from reclm.recommender import Recommender

K = 10
FIRST_TOKENS = 80


def exact_ranking(recommender: Recommender, history: np.ndarray) -> list[int]:
    """The best ``K`` rows outside the history, by log-probability in the first slot."""
    model: Any = recommender.backbone.model
    tokens = recommender.item_tokens
    trie = tokens.trie()
    closing = tokens.eoi_token_id
    prompt = [*recommender.list_request(history.tolist(), K).prompt_ids, tokens.soi_token_id]
    opened = model(input_ids=torch.tensor([prompt]), use_cache=True)
    first = [token for token in trie.next_tokens([]) if token is not None]
    logprobs = opened.logits[0, -1, first].float().log_softmax(-1)
    likely = {first[i]: float(logprobs[i]) for i in logprobs.topk(FIRST_TOKENS).indices.tolist()}
    rows = {row: [*tokens.row(row).tolist(), closing] for row in range(len(tokens))}
    seen = set(history.tolist())
    rows = {row: ids for row, ids in rows.items() if ids[0] in likely and row not in seen}
    length = max(map(len, rows.values()))
    padded = torch.tensor([ids + [closing] * (length - len(ids)) for ids in rows.values()])
    cache = copy.deepcopy(opened.past_key_values)
    cache.batch_repeat_interleave(len(rows))
    logits = model(input_ids=padded, past_key_values=cache, use_cache=True).logits.float()
    scores = {}
    for number, (row, ids) in enumerate(rows.items()):
        scores[row] = likely[ids[0]]
        for place in range(1, len(ids)):
            allowed = [closing if t is None else t for t in trie.next_tokens(ids[:place])]
            chosen = logits[number, place - 1, allowed].log_softmax(-1)[allowed.index(ids[place])]
            scores[row] += float(chosen)
    return sorted(scores, key=lambda row: -scores[row])[:K]


def main() -> None:
    """Compares both on the held-out items of some users."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"))
    parser.add_argument("--users", type=int, default=315)
    options = parser.parse_args()
    if not (options.demo / "summary.json").is_file():
        sys.exit(f"--demo {options.demo}: no finished demo there; run `make demo` first")
    recommender = Recommender.from_pretrained(options.demo / "cgen")
    catalog = Catalog.load(options.demo / "data")
    split = leave_one_out(Histories.load(options.demo / "data", catalog))
    users = np.linspace(0, len(split) - 1, options.users).astype(int)
    answers: dict[str, list[list[int]]] = {"exact ranking of the first slot": [], "greedy list": []}
    with torch.inference_mode():
        for user in users:
            history = split.test(int(user)).history
            answers["exact ranking of the first slot"].append(exact_ranking(recommender, history))
            ids = [catalog.item(int(row)).item_id for row in history]
            named = [catalog.row(item.item_id) for item in recommender.recommend(ids, K)]
            answers["greedy list"].append(named)
    relevant = [[int(split.test(int(user)).target)] for user in users]
    table = []
    for name, lists in answers.items():
        hits, gains = hit_rate(lists, relevant, K).mean(), ndcg(lists, relevant, K).mean()
        table.append((name, f"{hits:.3f}", f"{gains:.3f}"))
    question = f"Ranking items or decoding a list: the demo's model, {len(users)} users"
    publish("ranking", question, markdown(("answers", "HR@10", "NDCG@10"), table))


if __name__ == "__main__":
    main()
