"""One frozen dataclass per stage; the command line and YAML files are made from these.

Nothing heavy is imported here: ``incatalog --help`` reads this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Method = Literal["cgen", "token", "ret"]
ItemForm = Literal["titles", "codes"]
HistoryForm = Literal["title", "span"]
ListForm = Literal["numbered", "plain"]
Decode = Literal["beam", "list"]
Quote = Literal["double", "none"]
EvaluationDecode = Literal["beam", "list", "unconstrained"]
ScopeType = Literal["branching", "open", "every"]
LossType = Literal["focal-items", "focal", "plain"]
ParaphrasePlace = Literal["history", "targets", "both"]
RewardName = Literal["rule", "ndcg", "ranking", "teacher", "diversity", "format"]


@dataclass(frozen=True)
class DemoConfig:
    """Data, teacher, training and evaluation in one go, on MovieLens-100K.

    Attributes:
        out: Folder for data, teacher, model and summary.
        source: MovieLens-100K folder; empty takes the one in the recbole wheel.
        budget: Size of the training: smoke (seconds, only shows that it runs), laptop (within ten
            minutes on two cores) or hour.
        seed: Seed of everything.
    """

    out: Path = Path("runs/demo")
    source: str = ""
    budget: Literal["smoke", "laptop", "hour"] = "laptop"
    seed: int = 0
