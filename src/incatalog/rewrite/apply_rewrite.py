"""`incatalog rewrite apply`: paraphrases of every title, beside the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from incatalog.artifacts import open_run
from incatalog.checksums import verify_checksums
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.cleaning import title_key
from incatalog.data.documents import json_lines, write_lines
from incatalog.data.parquet_documents import document
from incatalog.errors import DataError
from incatalog.journal import Journal
from incatalog.model.backbone import Backbone, load_backbone
from incatalog.rewrite.rewrite_data import ROWS_FILE
from incatalog.rewrite.rewrite_rewards import REWRITE_REWARDS
from incatalog.rewrite.rows import rewrite_of
from incatalog.rewrite.scoring import RewriteScoring
from incatalog.rewrite.settings import RewriteApplySettings

PARAPHRASES_FILE = "paraphrases.jsonl"
_UNFINISHED = "unfinished.jsonl"


def apply_rewrite(settings: RewriteApplySettings) -> Path:
    """Samples rewrites of every title and keeps those that are titles of their own.

    With rewards the best come first, by the mean of all; without, they stay in the order in which
    they were sampled.

    Killed and started again with the same configuration, it continues after the last batch.

    Returns:
        The run folder with :data:`PARAPHRASES_FILE`: item id, title and paraphrases of each item;
        the title itself is never replaced.

    Raises:
        ConfigError: A setting that cannot work.
        DataError: The rows are missing, or those of another catalog.
        ScorerError: A scorer cannot answer; the run goes on when it is started again.
        ArtifactError: The run folder holds something else.
    """
    _check(settings)
    catalog = Catalog.load(settings.data, title_field=settings.title_field)
    path, scorers = settings.rows / ROWS_FILE, settings.scorers
    rows = _single_rows(path, catalog)
    inputs = {"catalog": document(settings.data, METAS), "rows": path, "scorers": scorers}
    run = open_run(settings.out, "rewrite apply", settings, inputs=inputs)
    if run.finished:
        return run.folder
    backbone = load_backbone(settings.model, device=settings.device)
    backbone.model.eval()
    scoring = None if scorers is None else RewriteScoring.load(scorers, settings.device)
    unfinished = Journal(run.folder / _UNFINISHED)
    done = [line for batch in unfinished.records() for line in batch]
    taken = {title_key(title) for title in (*catalog.titles, *catalog.names)}
    taken |= {title_key(text) for line in done for text in line["paraphrases"]}
    for start in range(len(done), len(rows), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        set_seed(settings.seed + start)
        sampled = _sample(settings, backbone, rows[part])
        lines = []
        for item, row, texts in zip(catalog.items[part], rows[part], sampled, strict=True):
            kept = _kept(settings, scoring, row, texts, taken)
            # A paraphrase of one item is taken for all others.
            taken |= set(map(title_key, kept))
            lines.append({"item_id": item.item_id, "title": row["title"], "paraphrases": kept})
        unfinished.append(lines)
        done += lines
    write_lines(run.folder / PARAPHRASES_FILE, done)
    counts = [len(line["paraphrases"]) for line in done]
    run.finish(items=len(done), paraphrases=sum(counts), without=counts.count(0))
    unfinished.path.unlink(missing_ok=True)
    return run.folder


def _check(settings: RewriteApplySettings) -> None:
    unknown = [name for name in settings.reward if name not in REWRITE_REWARDS]
    settings.refuse_first([
        (bool(unknown), f"--reward {' '.join(unknown)}",
         f"no such reward; expected some of {', '.join(REWRITE_REWARDS)}"),
        ("user2item" in settings.reward, "--reward user2item", "is of histories, not of titles"),
        (bool(settings.reward) and settings.scorers is None,
         "--reward", "nobody to score; add --scorers FILE"),
        (not settings.data.is_dir(), "data", "no such folder"),
        (not (settings.rows / ROWS_FILE).is_file(),
         "rows", f"holds no {ROWS_FILE}; make it with `incatalog rewrite data`"),
    ])  # fmt: skip


def _single_rows(path: Path, catalog: Catalog) -> list[dict[str, Any]]:
    """The row of each item, in the order of the catalog."""
    verify_checksums(path.parent, (path.name,))
    # Several items of one title have a row each.
    found: dict[str, list[dict[str, Any]]] = {title: [] for title in catalog.names}
    for _, line in json_lines(path):
        if line.get("kind") == "single":
            found.setdefault(line["title"], []).append(line)
    rows = []
    for item in catalog.items:
        if not found[item.called]:
            missing = f"has no row for item {item.item_id!r}; make it anew for this catalog"
            raise DataError.at(path, missing)
        rows.append(found[item.called].pop(0))
    return rows


@torch.no_grad()
def _sample(
    settings: RewriteApplySettings, backbone: Backbone, batch: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """Rewrites of each row, as the model writes them."""
    tokenizer: Any = backbone.tokenizer
    model: Any = backbone.model
    chats = [row["messages"] for row in batch]
    prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    width, per_item = max(map(len, ids)), settings.per_item
    fill = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    padded = torch.tensor([[fill] * (width - len(own)) + own for own in ids])
    seen = torch.tensor([[0] * (width - len(own)) + [1] * len(own) for own in ids])
    written = model.generate(
        input_ids=padded.to(model.device),
        attention_mask=seen.to(model.device),
        do_sample=True,
        temperature=settings.temperature,
        top_k=0,
        top_p=1.0,
        num_return_sequences=per_item,
        max_new_tokens=settings.max_tokens,
        pad_token_id=fill,
    )[:, width:]
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    return [texts[place : place + per_item] for place in range(0, len(texts), per_item)]


def _kept(
    settings: RewriteApplySettings,
    scoring: RewriteScoring | None,
    row: Mapping[str, Any],
    texts: Sequence[str],
    taken: set[str],
) -> list[str]:
    """The rewrites that differ from all titles and are good enough, the best first."""
    own: dict[str, str] = {}
    for rewrite in map(rewrite_of, texts):
        key = title_key(rewrite)
        if rewrite and "\n" not in rewrite and key not in taken:
            own.setdefault(key, rewrite)
    kept = dict.fromkeys(own.values(), 0.0)
    for name in settings.reward:
        if kept and scoring is not None:
            scored = list(kept)
            columns = {column: [value] * len(scored) for column, value in row.items()}
            rewards = scoring.rewards(name, scored, columns)  # type: ignore[arg-type]
            kept = {
                text: kept[text] + good
                for text, good in zip(scored, rewards, strict=True)
                if good is not None and good >= settings.least
            }
    return sorted(kept, key=lambda text: -kept[text])
