"""Settings of `incatalog publish`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from incatalog.config import Headings, Settings


@dataclass(frozen=True)
class PublishSettings(Settings):
    """Publish a trained model on the Hugging Face hub, with a card that says what it is.

    Example:
        incatalog publish runs/tiny --to org/name --dry-run
        incatalog publish runs/tiny --to org/name --private --evaluation runs/evaluation/tiny \
runs/evaluation/popularity
    """

    headings: ClassVar[Headings] = {
        "what": "model evaluation license",
        "where": "to revision private dry_run",
    }

    model: Path
    """Folder of a trained model; an adapter has to be merged first, unless its base is on the
    hub."""
    to: str
    """Its name on the hub, as org/name; a new one is made."""
    revision: str | None = None
    """Branch to publish on, which is made if it is not there; main if not given."""
    private: bool = False
    """Show a new model to its owner alone; one that is public already is refused."""
    evaluation: tuple[str, ...] = ()
    """Runs of `incatalog evaluate recommend` whose figures stand in the card: of this model, and
    beside it of popularity and teachers on the same users. If not given, those that are found in
    FOLDER-evaluation and in evaluation/ beside the folder."""
    license: str = ""
    """Licence of the model as the hub names it, such as apache-2.0; that of its base if not given,
    where it is known."""
    dry_run: bool = False
    """Check everything, print the card and what would be sent, and ask nobody."""
