from __future__ import annotations

from incatalog.evaluation.glossary import glossary
from incatalog.evaluation.looks import LOOKS


def test_only_what_is_used_is_explained_and_every_method_can_be() -> None:
    found = glossary({"HR", "blend", "of no term"}, 5)
    assert list(found) == ["HR", "blend"]
    assert found["HR"].word == "HR@5"
    assert "among the 5 recommended" in found["HR"].meaning
    methods = glossary(set(LOOKS), 5)
    assert set(methods) == set(LOOKS)
    for key, look in LOOKS.items():
        assert methods[key].word == look.label


def test_a_term_takes_few_lines() -> None:
    everything = glossary({*LOOKS, *_KEYS}, 10)
    assert set(_KEYS) <= set(everything)
    assert all(len(term.meaning) <= 160 for term in everything.values())


_KEYS = (
    "held-out", "HR", "NDCG", "MRR", "OOD", "RightCount", "InHistory", "coverage", "Novelty",
    "Similarity", "ECE", "interval", "p", "segment", "ranking", "list", "guided", "free",
    "teacher", "NoControl", "perplexity",
)  # fmt: skip
