"""What reads the conversations of each domain of a service."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from incatalog.data.catalog import Catalog
from incatalog.recommender.opening import loaded_encoder
from incatalog.serving.guiding import GuideChoices
from incatalog.steering.balance import Balance
from incatalog.steering.sentences import Sentences
from incatalog.steering.steering import Steering


@dataclass(frozen=True)
class SteeringChoices:
    """The steering that the settings name; all domains share one encoder."""

    encoder: str  # minilm, words, off or a folder
    guides: GuideChoices

    def load(self, name: str, catalog: Catalog) -> Steering | None:
        """The steering of a domain, as fitted beside its guide; None where it is off."""
        encoder = self._loaded
        if encoder is None:
            return None
        teacher = self.guides.choice(name, catalog).folder(self.guides.settings.model)
        balance = Balance.beside(teacher, self.encoder)
        return Steering.of(catalog, encoder=encoder, balance=balance)

    @cached_property
    def _loaded(self) -> str | Sentences | None:
        return loaded_encoder(self.encoder)
