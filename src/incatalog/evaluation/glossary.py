"""The words of the report, in two lines each."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Term(NamedTuple):
    """A word and what it means."""

    word: str
    meaning: str


# What stands in braces is the number of items of an answer.
_TERMS = {
    "held-out": Term(
        "held-out item",
        "What a user chose last. It was hidden from every model, and is the one right answer.",
    ),
    "HR": Term(
        "HR@{k}",
        "Hit rate: the share of users whose held-out item is among the {k} recommended ones.",
    ),
    "NDCG": Term(
        "NDCG@{k}",
        "A hit counts 1 at the first place and less at each later one; no hit counts 0. The mean "
        "over users.",
    ),
    "MRR": Term("MRR@{k}", "One over the place of the hit, 0 without one. The mean over users."),
    "OOD": Term(
        "OOD@{k}",
        "Out of domain: the share of what an answer names that the catalog does not have. Nothing "
        "is repaired before it is counted.",
    ),
    "RightCount": Term("right count", "The share of answers that name exactly {k} things."),
    "InHistory": Term("in history", "The share of the answer that the user had already."),
    "coverage": Term("coverage", "The share of the catalog that is recommended to anyone."),
    "Novelty": Term(
        "novelty",
        "How rare the recommended items are among users, in bits: one more means half as common.",
    ),
    "Similarity": Term(
        "similarity", "How many categories two items of one answer share: 0 none, 1 all."
    ),
    "ECE": Term(
        "ECE",
        "How far the probabilities that a model gives its items are from how often they were "
        "right. The mean over items.",
    ),
    "interval": Term(
        "interval",
        "95 % bootstrap interval over users: made so, 19 of 20 intervals hold the true mean. A "
        "difference whose interval holds 0 may be chance.",
    ),
    "p": Term(
        "p (Holm)",
        "How often chance alone gives such a difference (paired permutation test), corrected for "
        "the number of comparisons. Below 0.05 is called significant.",
    ),
    "segment": Term(
        "head and tail",
        "Head: the fifth of the items that most users have. Tail: all others, which are harder.",
    ),
    "ranking": Term(
        "ranking",
        "A language model gives every item of the catalog a probability; the best {k} are taken.",
    ),
    "list": Term(
        "list",
        "A language model writes item after item, as it does in a chat, held to the catalog.",
    ),
    "guided": Term(
        "guided",
        "A teacher weighs the items while the language model writes. How much it counts "
        "was fitted on other items.",
    ),
    "free": Term(
        "free text", "The language model writes what it likes; names are looked up afterwards."
    ),
    "teacher": Term(
        "teacher",
        "A recommender that is no language model. It can recommend alone, train one, or guide one.",
    ),
    "NoControl": Term(
        "plain text", "The share of later answers that are free of the marks around items."
    ),
    "perplexity": Term(
        "perplexity",
        "How much general conversation surprises the model; lower is better. More than before "
        "training means that it forgot some language.",
    ),
    "popularity": Term(
        "popularity", "The base line: everybody gets what most users have and they have not."
    ),
    "sasrec": Term(
        "SASRec", "A teacher: a small network that reads the order of a user's items (Transformer)."
    ),
    "gru4rec": Term(
        "GRU4Rec", "A teacher: a recurrent network that reads a user's items in order."
    ),
    "knn": Term("kNN", "A teacher that counts which items followed one another among users."),
    "ease": Term("EASE", "A teacher: linear weights between items that users have together."),
    "words": Term("words", "A teacher that finds items whose texts are like those of the history."),
    "blend": Term("blend", "A teacher: the scores of several others, added with fitted weights."),
    "cgen": Term("cgen", "A language model that writes the titles of items, token by token."),
    "token": Term("token", "A language model that writes items as short codes (semantic IDs)."),
    "ret": Term(
        "ret", "A language model that points to items by vectors, and writes their titles."
    ),
    "untrained": Term("untrained", "A chat model that never saw the catalog."),
    "plain titles": Term(
        "plain titles", "A language model trained to write titles without marks around them."
    ),
}


def glossary(used: Collection[str], k: int) -> dict[str, Term]:
    """The terms of these keys, in the order of reading."""
    return {
        key: Term(term.word.format(k=k), term.meaning.format(k=k))
        for key, term in _TERMS.items()
        if key in used
    }
