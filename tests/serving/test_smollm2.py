"""A chat model that is none of ours yet, served as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from chatting import Server
from incatalog.model.backbone import load_backbone

QUESTIONS = (
    "What is the capital of France? Answer in one sentence.",
    "Write a haiku about rain.",
    "What is 12 times 7?",
)


@pytest.mark.slow
def test_plain_chat_is_that_of_transformers_token_for_token(
    tmp_path: Path, smollm2_folder: Path, books: Path
) -> None:
    backbone = load_backbone(smollm2_folder, device="cpu")
    tokenizer: Any = backbone.tokenizer
    model: Any = backbone.model.eval()
    expected = []
    for question in QUESTIONS:
        conversation = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            written = model.generate(**ids, max_new_tokens=40, do_sample=False)
        tokens = written[0, ids["input_ids"].shape[1] :].tolist()
        expected.append((tokenizer.decode(tokens, skip_special_tokens=True), len(tokens)))
    flags = ("--model", smollm2_folder, "--domain", f"books={books}", "--guide", "off")
    with Server(tmp_path / "log", *flags) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120)
        for question, (text, count) in zip(QUESTIONS, expected, strict=True):
            answer = client.chat.completions.create(
                model="incatalog",
                messages=[{"role": "user", "content": question}],
                max_tokens=40,
                temperature=0,
            )
            assert answer.choices[0].message.content == text
            assert answer.usage is not None
            # The token that ends a turn is written by the model and not told.
            ended = answer.choices[0].finish_reason == "stop"
            assert answer.usage.completion_tokens == count - ended
        # An untrained model recommends from the catalog all the same, if only by its liking.
        listed = client.chat.completions.create(
            model="incatalog/books",
            messages=[{"role": "user", "content": "Something to read?"}],
            extra_body={"k": 4},
        )
        assert {item["id"] for item in listed.items} == {"b/0", "b/1", "b/2", "b/3"}  # type: ignore[attr-defined]
