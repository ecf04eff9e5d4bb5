"""What makes the grammar of an answer: a model folder, and what one request asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from incatalog.codes.semantic_ids import load_semantic_ids
from incatalog.config import SPEC_FILES
from incatalog.constraint.answer_grammar import AnswerForm, AnswerGrammar
from incatalog.constraint.compiling import compile_kernels
from incatalog.constraint.control import ControlTokens, check_control_tokens, open_span
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint
from incatalog.constraint.weights import ItemWeights
from incatalog.data.model_catalog import model_catalog
from incatalog.dialogue.render import Renderer
from incatalog.errors import BackboneError, CatalogError, ConfigError, TokenizerError
from incatalog.items.aliases import Aliases
from incatalog.items.tokens import tokenizer_fingerprint
from incatalog.model.pretrained import load_tokenizer
from incatalog.model.spec import ModelSpec, load_spec, require_spans, spec_file
from incatalog.model.vocabulary import code_token_ids
from incatalog.recent import RecentlyUsed
from incatalog.recommender.guide import log_factors
from incatalog.recommender.items import ModelItems
from incatalog.recommender.prompts import list_scaffold, stop_tokens
from incatalog.trie.trie import ItemTrie
from incatalog.vllm.answer_terms import TERMS
from incatalog.vllm.item_request import ItemRequest, wrong
from incatalog.vllm.shared_tries import trie_folder

# Users choose how long lists are, and services how many versions of a catalog are in use.
_LISTS_KEPT, _VERSIONS_KEPT = 64, 16
_ADAPTER = "adapter_config.json"

_Lines = tuple[tuple[int, ...], ...]


def holds_model(folder: str | Path) -> bool:
    """Whether a folder is that of a model that was trained on a catalog."""
    return any((Path(folder) / name).exists() for name in SPEC_FILES)


@dataclass(frozen=True, eq=False)
class AnswerGrammars:
    """Makes the grammar of every answer of one model; holds no weights of it.

    Attributes:
        folder: The model's.
        domain: What its catalog is called.
        items: The items as the model writes them.
        control: Tokens that open and close spans, and those that end an answer.
        item_only: Tokens that stand nowhere but in spans.
        kept: Where a service keeps other versions of catalogs: the trie of each in a folder
            `{domain}/{version}`, as `ItemTrie.save` writes it. None where there are none.
    """

    folder: Path
    spec: ModelSpec
    domain: str
    items: ModelItems
    control: ControlTokens
    item_only: tuple[int, ...]
    renderer: Renderer
    kept: Path | None = None
    _lists: RecentlyUsed[int, _Lines] = field(
        init=False, repr=False, default_factory=lambda: RecentlyUsed(_LISTS_KEPT)
    )
    _tries: RecentlyUsed[tuple[str, str], ItemTrie] = field(
        init=False, repr=False, default_factory=lambda: RecentlyUsed(_VERSIONS_KEPT)
    )
    # An answer of each trie that says nothing: the others share its batch.
    _first: RecentlyUsed[ItemTrie, SpanConstraint] = field(
        init=False, repr=False, default_factory=lambda: RecentlyUsed(_VERSIONS_KEPT)
    )

    @classmethod
    def load(
        cls, folder: str | Path, *, domain: str = "", kept: Path | None = None
    ) -> AnswerGrammars:
        """Reads what a model folder has beside the weights.

        Raises:
            BackboneError: The folder holds no `incatalog.json`, an adapter, or a model whose items
                are not written token by token.
            IncatalogError: Something of it is missing, damaged, or does not fit.
        """
        folder = Path(folder)
        spec = load_spec(folder)
        require_spans(folder, spec)
        if spec.method == "ret":
            found = "finds items by their vectors, which vLLM cannot"
            raise BackboneError(f"{folder}: {found}; serve it with --engine incatalog")
        if (folder / _ADAPTER).exists():
            hint = "merge it first: incatalog train merge"
            raise BackboneError(f"{folder}: is an adapter; expected a whole model; {hint}")
        catalog = model_catalog(folder)
        tokenizer, configured = load_tokenizer(folder)
        if tokenizer_fingerprint(tokenizer) != spec.tokenizer_fingerprint:
            raise TokenizerError(
                f"{folder}: its tokenizer is not the one that {spec_file(folder)} was written "
                "with; restore it or train the model again"
            )
        codes = load_semantic_ids(folder, catalog) if spec.item_form == "codes" else None
        aliases = Aliases.load(folder, catalog, spec.aliases)
        items = ModelItems.of(tokenizer, spec.item_form, catalog, codes, aliases, spec.control)
        renderer = Renderer(tokenizer, items.tokens, spec.system)
        _, end = list_scaffold(renderer, spec.list_form, 1)
        soi, eoi = items.tokens.soi_token_id, items.tokens.eoi_token_id
        stop = stop_tokens(tokenizer, end, configured)
        control = check_control_tokens(items.grounding.trie, soi, eoi, stop)
        only = tuple(code_token_ids(tokenizer, spec.code_sizes))
        named = domain or catalog.name
        # The first answer of a process would wait for seconds otherwise.
        compile_kernels()
        return cls(folder, spec, named, items, control, only, renderer, kept)

    def grammar(self, asked: ItemRequest, *, together: bool = False) -> AnswerGrammar:
        """The grammar of an answer that begins.

        Args:
            asked: What the request asks for.
            together: Let it share a batch with all others that do; those belong to one thread.

        Raises:
            CatalogError: An item, a category or a version of the catalog is not there.
            ConfigError: A field of the request cannot be used.
            NoItemLeftError: The exclusions leave no item.
        """
        if asked.terms is not None:
            trie = self._written(asked.terms.trie)
            return asked.terms.grammar(trie, self._among(trie, together=together))
        trie, excluded, form = self.parts(asked)
        span = SpanConstraint(
            trie,
            self.control.eoi,
            excluded=excluded,
            weights=self._weights(asked, trie, excluded),
            among=self._among(trie, together=together),
        )
        return AnswerGrammar(span, self.control, form)

    def parts(self, asked: ItemRequest) -> tuple[ItemTrie, ExcludedItems | None, AnswerForm]:
        """What the grammar of an answer is made of, but for its weights; errors are the same."""
        trie = self._trie(asked)
        return trie, self._excluded(asked, trie), self._form(asked, trie)

    def weighs(self, asked: ItemRequest) -> bool:
        """Whether something beside the model weighs the items of an answer."""
        if asked.terms is not None:
            return asked.terms.weights is not None
        if asked.weights is None:
            return self._own(asked) and self.items.catalog.log_boosts is not None
        return True

    def model_share(self, asked: ItemRequest) -> float:
        """What the model's log-probability of an item is multiplied by."""
        if asked.terms is not None:
            return 1.0 if asked.terms.weights is None else asked.terms.weights[0]
        return 1.0 if asked.weights is None else 1.0 - asked.weights.share

    def check_prompt(self, prompt: list[int]) -> None:
        """Refuses a prompt that ends inside of an item span.

        Raises:
            ConfigError: It does.
        """
        place = open_span(prompt, self.control.soi, self.control.eoi)
        if place is not None:
            raise ConfigError(
                f"prompt: token {place} opens an item span that nothing closes; close it, or leave "
                "it out"
            )

    def _own(self, asked: ItemRequest) -> bool:
        """Whether the model's own catalog is meant, as it lies in the folder."""
        named = asked.domain in (None, self.domain)
        return named and asked.catalog_version in (None, self.items.catalog.fingerprint)

    def _trie(self, asked: ItemRequest) -> ItemTrie:
        if self._own(asked):
            return self.items.grounding.trie
        domain, version = asked.domain or self.domain, asked.catalog_version
        if version is not None and self.kept is not None:
            folder = self.kept / domain / version
            # A name may not lead out of the folder.
            plain = all(Path(one).name == one != ".." for one in (domain, version))
            if plain and folder.is_dir():
                return self._tries.get((domain, version), lambda: self._opened(folder))
        if domain != self.domain:
            raise CatalogError(f"domain: found {domain!r}; expected {self.domain!r}")
        own = self.items.catalog.fingerprint
        raise CatalogError(
            f"catalog_version: found {version!r}; the catalog {self.domain!r} of {self.folder} is "
            f"{own}; ask for that one, or start the engine with the other"
        )

    def _written(self, name: str) -> ItemTrie:
        """The trie that a service has written under a number."""
        if self.kept is None:
            why = "names a trie of a service, and no service has started this engine"
            raise ConfigError(f"{TERMS}: {why}; ask that service")
        folder = trie_folder(self.kept, name)
        return self._tries.get(("", name), lambda: self._opened(folder))

    def _opened(self, folder: Path) -> ItemTrie:
        trie = ItemTrie.load(folder)
        check_control_tokens(trie, self.control.soi, self.control.eoi, self.control.stop)
        return trie

    def _among(self, trie: ItemTrie, *, together: bool) -> SpanConstraint | None:
        """An answer whose batch another one is to share, if it is to."""
        if not together:
            return None
        return self._first.get(trie, lambda: SpanConstraint(trie, self.control.eoi))

    def _excluded(self, asked: ItemRequest, trie: ItemTrie) -> ExcludedItems | None:
        base = None
        if self._own(asked):
            rules = asked.exclude, asked.categories
            base = self.items.excluded(*rules, where=asked.where)
        else:
            for name in ("exclude", "categories", "where"):
                if given := getattr(asked, name):
                    raise wrong(name, given, "excluded_rows, in a version that a service keeps")
        rows = asked.excluded_rows
        outside = [row for row in rows if not 0 <= row < trie.num_items]
        if outside:
            raise wrong("excluded_rows", outside[0], f"rows from 0 to {trie.num_items - 1}")
        return ExcludedItems.build(trie, rows, base) if rows else base

    def _weights(
        self, asked: ItemRequest, trie: ItemTrie, excluded: ExcludedItems | None
    ) -> ItemWeights | None:
        given = asked.weights
        factors = None if given is None else given.log_factors
        boost = {} if given is None else given.boost
        if factors is None and self._own(asked):
            factors = log_factors(self.items.catalog, boost)
        elif boost:
            raise wrong("weights: boost", boost, "none beside log_factors, or in a kept version")
        own = None if given is None else given.log_weights
        for name, values in (("log_weights", own), ("log_factors", factors)):
            if values is not None and len(values) != trie.num_items:
                raise wrong(f"weights: {name}", f"{len(values)} numbers", f"{trie.num_items}")
        if own is None and factors is None:
            return None
        share = 0.0 if given is None else given.share
        return ItemWeights.build(trie, own, share=share, log_factors=factors, base=excluded)

    def _form(self, asked: ItemRequest, trie: ItemTrie) -> AnswerForm:
        if asked.k is None:
            return AnswerForm(max_items=asked.max_items, item_only=self.item_only)
        k = min(asked.k, int(np.count_nonzero(trie.live_rows)))
        return AnswerForm(self._lists.get(k, lambda: self._lines(k)), k, self.item_only)

    def _lines(self, k: int) -> _Lines:
        scaffold, _ = list_scaffold(self.renderer, self.spec.list_form, k)
        return scaffold.before_item
