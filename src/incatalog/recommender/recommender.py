"""The public face: a trained model, its catalog and its engine."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from incatalog.codes.semantic_ids import SemanticIds, load_semantic_ids
from incatalog.config import Decode
from incatalog.data.catalog import Catalog, Item
from incatalog.data.model_catalog import model_catalog
from incatalog.data.where import EVERYTHING, Where
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import RankedItems
from incatalog.decoding.ranking import ItemBeam, ItemRanking
from incatalog.decoding.request import Grounding
from incatalog.decoding.retriever import ItemRetriever
from incatalog.errors import ConfigError, VectorError
from incatalog.items.aliases import Aliases
from incatalog.model.backbone import Backbone
from incatalog.model.hub import on_disk
from incatalog.model.spec import ModelSpec
from incatalog.packed.model import PackedModel
from incatalog.recommender.answer import Recommendation, recommendations
from incatalog.recommender.guide import Guide
from incatalog.recommender.guide_folder import GuideChoice
from incatalog.recommender.items import ModelItems
from incatalog.recommender.model_parts import checked_spec, load_packed
from incatalog.recommender.prompts import Prompts
from incatalog.recommender.settings import OFF, OWN
from incatalog.recommender.talking import Talking
from incatalog.recommender.weighed_histories import ListRules, weighed_histories
from incatalog.steering.steering import Steering


class Recommender(Talking):
    """A model that recommends items of one catalog.

    Several threads may use one or several recommenders of the same model: they take turns with the
    model, pass by pass. A stream that nobody reads waits, and blocks no other. Code that uses the
    model itself at the same time, such as ``model.generate``, has to hold ``engine.model.lock``.

    Args:
        backbone: Model and tokenizer.
        spec: How the model was trained, and therefore has to be asked.
        catalog: The items; or ``items`` as they were written for this model before.
        semantic_ids: Codes of the items, for a model that writes codes.
        aliases: Spellings of the items besides their titles, for a model that writes those too.
            Answers and later prompts still show titles.
        packed: The same model as the engine feeds it, where there is one already.
        guide: A teacher of this catalog that counts in every answer; None for the model alone.
        steering: What reads conversations about this catalog; None where nothing said steers.

    Attributes:
        backbone: As given, and so are ``spec``, ``guide`` and ``steering``.
        items: The items as the model writes them, with ``catalog`` (each item has what the model
            writes as its ``title_t``; answers show its ``title``), ``item_tokens``, ``aliases``,
            ``grounding``, ``disabled`` and ``excluded`` of this value.
        prompts: Makes requests of histories and conversations, with its ``renderer``,
            ``list_request``, ``slot`` and ``chat_request``.
        engine: Generates answers, also for the same model on other catalogs.

    Raises:
        CatalogError: An alias is the title of an item.
        ConfigError: ``packed`` is another model.
        SemanticIdError: The model writes codes and none are given.
        TeacherError: The guide's teacher was fitted on another catalog.
        TokenizerError: The tokenizer lacks tokens of the items.
        VectorError: The model retrieves, and its vectors are those of another number of items.
    """

    def __init__(
        self,
        backbone: Backbone,
        spec: ModelSpec,
        catalog: Catalog | ModelItems,
        semantic_ids: SemanticIds | None = None,
        aliases: Aliases | None = None,
        packed: PackedModel | None = None,
        guide: Guide | None = None,
        steering: Steering | None = None,
    ) -> None:
        items = catalog
        if isinstance(items, Catalog):
            written = backbone.tokenizer, spec.item_form
            items = ModelItems.of(*written, items, semantic_ids, aliases, backbone.control)
        if packed is not None and packed.model is not backbone.model:
            raise ConfigError("packed: is another model than the backbone's; pack that one")
        if backbone.head is not None:
            found = Grounding(items.grounding.trie, ItemRetriever(backbone.head))
            items = replace(items, grounding=found)
        if guide is not None:
            guide.check_catalog(items.catalog)
        self.backbone, self.spec, self.guide = backbone, spec, guide
        self.steering = None if steering is None else steering.with_catalog(items.catalog)
        self._take(items, Prompts(backbone, spec, items))
        self.engine = Engine(
            backbone.model if packed is None else packed,
            items.grounding.trie,
            soi_token_id=backbone.soi_token_id,
            eoi_token_id=backbone.eoi_token_id,
            stop_token_ids=self.prompts.stop_token_ids,
            item_only_token_ids=backbone.code_token_ids,
            retriever=items.grounding.retriever,
        )

    def _take(self, items: ModelItems, prompts: Prompts) -> None:
        self.items, self.prompts = items, prompts
        self.catalog, self.item_tokens, self.aliases = items.catalog, items.tokens, items.aliases
        self.grounding, self.disabled = items.grounding, items.disabled
        self.excluded, self.renderer, self.slot = items.excluded, prompts.renderer, prompts.slot
        self.list_request, self.chat_request = prompts.list_request, prompts.chat_request

    def _with_items(self, items: ModelItems) -> Recommender:
        if items is self.items:
            return self
        changed = copy.copy(self)
        if items.grounding is not self.grounding:
            changed.__dict__.pop("beam", None)
        changed._take(items, self.prompts.with_items(items))
        if self.steering is not None:
            changed.steering = self.steering.with_catalog(items.catalog)
        return changed

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str = "auto",
        *,
        frozen: bool = True,
        verify: bool = True,
        guide: str | Path | None = OWN,
        guide_weight: float | None = None,
        wording: str | None = None,
        system: str | None = None,
        first_share: float | None = None,
        title_field: str = "",
        encoder: str = OFF,
        weights: bool = True,
        revision: str | None = None,
    ) -> Recommender:
        """Loads a trained model with the catalog that lies beside it.

        Args:
            folder: Folder of a trained model, or its name on the Hugging Face hub, as org/name.
            device: ``auto``, ``cpu``, ``cuda``, ...
            frozen: The weights will not change; see :class:`~incatalog.packed.model.PackedModel`.
            verify: Check the files against the checksums that were recorded when the model was
                trained; huge models load sooner without.
            guide: The guide that lies in the folder, if one does (``own``); the run folder or URL
                of a teacher; None for the model alone.
            guide_weight: How much the guide counts, from 0 to 1, in place of what was fitted.
            wording: Name of the wording to ask with, in place of the model's own.
            system: What the system message says, in place of the model's own; empty for none.
            first_share: How much the model's ranking of a list's first place counts at the places
                behind it where no guide weighs them, from 0 to less than 1; None for its own.
            title_field: The field by which the model knows its items, where that is to be held.
            encoder: What compares messages with items, so that what is said steers: ``minilm``,
                ``words``, the folder of a sentence-transformers model, or ``off``.
            weights: False leaves the weights where another engine has them, which is then to be
                asked in place of this recommender's.
            revision: Branch, tag or commit of a model on the hub; its main branch if None.

        Raises:
            ArtifactError: A file is not the one that was written.
            BackboneError: The model is incomplete or damaged, or writes plain titles.
            ConfigError: No wording has that name, or it offers candidates; or the model was trained
                with another title field.
            DataError: The catalog is incomplete or damaged.
            HubError: The hub does not give the model, and the cache does not hold it.
            SemanticIdError: The model writes codes, and the index files are missing or damaged.
            TeacherError: The guide is damaged, was fitted on another catalog, or does not answer.
            TokenizerError: The tokenizer is not the one the model was saved with.
        """
        folder = on_disk(folder, revision)
        catalog, spec = model_catalog(folder, title_field), checked_spec(folder, wording)
        codes = load_semantic_ids(folder, catalog) if spec.item_form == "codes" else None
        named = OFF if guide is None else str(guide)
        chosen = GuideChoice(named, guide_weight, trained=spec.trained)
        loaded = chosen.load(folder, catalog, device)
        how: Any = {"weights": weights, "frozen": frozen, "verify": verify}
        backbone, packed = load_packed(folder, device, **how)
        aliases = Aliases.load(folder, catalog, spec.aliases)
        spec = spec.asked(wording, system, first_share)
        steering = Steering.chosen(catalog, encoder, chosen.folder(folder))
        return cls(backbone, spec, catalog, codes, aliases, packed, loaded, steering)

    def with_guide(self, guide: Guide | None) -> Recommender:
        """The same recommender with another guide, or with none.

        The guide's teacher has to know the catalog as it is now: TeacherError if not.
        """
        if guide is not None:
            guide.check_catalog(self.catalog)
        changed = copy.copy(self)
        changed.guide = guide
        return changed

    def with_steering(self, steering: Steering | None) -> Recommender:
        """The same recommender, where what is said steers so, or not at all."""
        changed = copy.copy(self)
        changed.steering = None if steering is None else steering.with_catalog(self.catalog)
        return changed

    def with_catalog(
        self,
        catalog: Catalog,
        semantic_ids: SemanticIds | None = None,
        vectors: Float32[np.ndarray, "items dim"] | None = None,
        guide: Guide | Literal["own"] | None = OWN,
    ) -> Recommender:
        """The same model on another catalog, whose items have no aliases; the weights are shared.

        Args:
            catalog: The items.
            semantic_ids: Codes of the items, needed by a model that writes codes; from the
                quantizer whose codes the model was trained with.
            vectors: Vector of each item, needed by a model that retrieves; made by the model and
                wording of those it was trained with (`incatalog items embed`).
            guide: A guide of that catalog, or None; without it the guide stays, if there is one.

        Raises:
            SemanticIdError: The model writes codes and none are given.
            TeacherError: The guide is one of another catalog.
            TokenizerError: The model has no token for one of the codes.
            VectorError: The model retrieves and vectors are missing or do not fit.
        """
        backbone = self.backbone
        if backbone.head is not None:
            if vectors is None:
                lacking = "the model finds items by their vectors, and this catalog comes without"
                hint = backbone.head.how_to_embed()
                raise VectorError(f"catalog {catalog.name}: {lacking}; {hint}")
            backbone = replace(backbone, head=backbone.head.with_vectors(vectors))
        kept = self.guide if isinstance(guide, str) else guide
        packed = self.engine.model
        return Recommender(backbone, self.spec, catalog, semantic_ids, packed=packed, guide=kept)

    @cached_property
    def beam(self) -> ItemBeam | ItemRanking:
        """Ranks the items of one place in a text."""
        model, trie, retriever = self.engine.model, self.grounding.trie, self.grounding.retriever
        if retriever is not None:
            return ItemRanking(model, trie, retriever)
        soi, eoi = self.backbone.soi_token_id, self.backbone.eoi_token_id
        return ItemBeam(model, trie, soi_token_id=soi, eoi_token_id=eoi)

    def with_changes(
        self,
        items: Sequence[Item] = (),
        removed: Sequence[str] = (),
        semantic_ids: SemanticIds | None = None,
        vectors: Float32[np.ndarray, "items dim"] | None = None,
    ) -> Recommender:
        """The same model on a changed catalog; answers that have begun are not disturbed.

        Nothing is built anew, so it takes milliseconds.

        Args:
            items: New items; one of them may take the id of a removed one.
            removed: Ids of items that leave, with all their spellings.
            semantic_ids: Codes of the new items, as in :meth:`with_catalog`.
            vectors: Vectors of the new items, as there.

        Raises:
            CatalogError: A removed item is not there, a new one's id is taken, or no item is left.
            DataError: A title is empty once cleaned, or the tokenizer cannot spell it.
            SemanticIdError: The model writes codes, and none are given or those of another item.
        """
        return self._with_items(self.items.with_changes(items, removed, semantic_ids, vectors))

    def with_updated(self, items: Sequence[Item]) -> Recommender:
        """The same items, some of which have other categories, texts, boosts or attributes.

        An item that is not there, or is called otherwise, is a CatalogError.
        """
        return self._with_items(self.items.with_updated(items))

    def with_metadata(self, catalog: Catalog) -> Recommender:
        """The same items under another catalog's name, categories and descriptions.

        Other items, or another order, are a CatalogError.
        """
        return self._with_items(self.items.with_metadata(catalog))

    def with_disabled(self, item_ids: Collection[str]) -> Recommender:
        """The same recommender, where exactly these items of the catalog are never recommended.

        Unlike removed items they may stand in histories, and can be recommended again later. An id
        that is not in the catalog is a CatalogError.
        """
        return self._with_items(self.items.with_disabled(item_ids))

    def recommend(
        self,
        history_item_ids: Sequence[str],
        k: int = 10,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        exclude_seen: bool = True,
        decode: Decode = "beam",
        boost: Mapping[str, float] | None = None,
        guide_weight: float | None = None,
        where: Where = EVERYTHING,
    ) -> list[Recommendation]:
        """Recommends items that follow a history.

        Args:
            history_item_ids: Item ids, oldest first; the model sees the newest of them.
            k: Items to recommend.
            exclude: Item ids never to recommend.
            categories: Recommend from these categories only; all if empty.
            exclude_seen: Never recommend items of the history.
            decode: ``beam`` ranks the items the model would write in first place, by their exact
                probability; ``list`` has it write a list, item after item, each the best one at
                its place and the first; ``greedy`` has it write that list token by token.
            boost: Factors of items by id, more than 0, beside those of the catalog.
            guide_weight: How much the guide counts, in place of what it says itself.
            where: Conditions that every item fulfils, such as
                ``Where.parse({"price": {"lte": 20}})``.

        Returns:
            ``k`` different items, best first; fewer only where the catalog has no more to offer.

        Raises:
            CatalogError: An item, category or field is not in the catalog.
            NoItemLeftError: The exclusions leave no item at all.
            TeacherError: The guide does not answer.
        """
        how: Any = {"exclude_seen": exclude_seen, "decode": decode, "boost": boost}
        how |= {"guide_weight": guide_weight, "where": where}
        [found] = self.recommend_batch([history_item_ids], k, exclude, categories, **how)
        if not found:
            raise self.items.no_item_left()
        return found

    def recommend_batch(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        exclude_seen: bool = True,
        decode: Decode = "beam",
        batch_size: int = 64,
        boost: Mapping[str, float] | None = None,
        guide_weight: float | None = None,
        where: Where = EVERYTHING,
        excludes: Sequence[Sequence[str]] | None = None,
        boosts: Sequence[Mapping[str, float]] | None = None,
    ) -> list[list[Recommendation]]:
        """Recommends for many histories side by side; arguments as in :meth:`recommend`.

        ``excludes`` and ``boosts`` are what each history excludes and boosts beside those of all. A
        history that leaves no item to recommend gets an empty list and does not stop the others.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size: found {batch_size}; expected at least 1")
        rules = ListRules(
            exclude=exclude,
            categories=categories,
            exclude_seen=exclude_seen,
            decode=decode,
            boost=boost,
            guide_weight=guide_weight,
            where=where,
            excludes=excludes,
            boosts=boosts,
        )
        k = self.items.at_most(k)
        found: list[list[Recommendation]] = []
        for asked in weighed_histories(self, histories, rules, batch_size):
            if decode == "beam":
                slots = [one.slot(self, k) for one in asked]
                found += map(self.ranking, self.beam.top_items(slots, k))
                continue
            requests = [one.request(self, k, rules.written) for one in asked]
            for done in self.engine.complete(requests):
                found.append(recommendations(self.catalog, done.items, done.logprobs))
        return found

    def ranking(self, found: RankedItems) -> list[Recommendation]:
        """What a search found, as recommendations."""
        return recommendations(self.catalog, found.rows.tolist(), found.logprobs.tolist())
