"""What reads the conversations of each domain of a service."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from incatalog.data.catalog import Catalog
from incatalog.model.pretrained import cache_folder
from incatalog.serving.guiding import GuideChoices
from incatalog.steering.balance import WORDS, Balance
from incatalog.steering.sentences import Sentences
from incatalog.steering.steering import CACHE, OFF, Steering


@dataclass(frozen=True)
class SteeringChoices:
    """The steering that the settings name; all domains share one encoder."""

    encoder: str  # minilm, words, off or a folder
    guides: GuideChoices

    def load(self, name: str, catalog: Catalog) -> Steering | None:
        """The steering of a domain, as fitted beside its guide; None where it is off."""
        if self.encoder == OFF:
            return None
        teacher = self.guides.choice(name, catalog).folder(self.guides.settings.model)
        balance = Balance.beside(teacher, self.encoder)
        return Steering.of(catalog, encoder=self._loaded, balance=balance)

    @cached_property
    def _loaded(self) -> str | Sentences:
        if self.encoder == WORDS:
            return WORDS
        return Sentences.load(self.encoder, cache_folder() / CACHE)
