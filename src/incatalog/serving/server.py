"""The process that serves a model: `incatalog serve`."""

from __future__ import annotations

import ipaddress
import re
import tempfile
from collections.abc import Collection
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from incatalog.errors import BackboneError, ConfigError, require
from incatalog.serving.address import check_address
from incatalog.serving.memory import compiled_elsewhere, give_memory_back, import_lean
from incatalog.serving.settings import ServeSettings
from incatalog.web.listener import bound, serve_app

if TYPE_CHECKING:
    from incatalog.data.catalog import Catalog
    from incatalog.recommender.guide import Guide
    from incatalog.recommender.recommender import Recommender

# Seconds that a request waits to be counted with those of other services.
_RATE_TIMEOUT = 1.0
_ORIGIN = re.compile(r"https://[A-Za-z0-9.-]+(:\d+)?")


def serve(settings: ServeSettings) -> None:
    """Serves until SIGTERM or SIGINT, then answers what it has accepted and returns.

    Raises:
        ConfigError: A setting cannot work, or the port is taken.
        DataError: A catalog is missing or broken.
        BackboneError: The model is.
        MissingExtraError: FastAPI, uvicorn, rapidfuzz or the Prometheus client is not installed.
    """
    for package in ("fastapi", "prometheus_client", "rapidfuzz", "uvicorn"):
        require(package, extra="serve")
    give_memory_back()
    import_lean()
    from incatalog.model.hub import with_model_here
    from incatalog.model.spec import about, described
    from incatalog.recommender.popular_guide import popular_guide
    from incatalog.serving.access import Keys
    from incatalog.serving.catalogs import load_domains, own_name
    from incatalog.serving.follower import Follower
    from incatalog.serving.guiding import GuideChoices
    from incatalog.serving.rates import SharedRates
    from incatalog.serving.service import ChatService
    from incatalog.serving.sessions import SessionStore
    from incatalog.serving.steering_choices import SteeringChoices
    from incatalog.serving.store import CatalogStore

    named = _check(settings)
    settings = with_model_here(settings)
    fields = _title_fields(settings, named)
    keys = None if settings.keys is None else Keys.load(settings.keys)
    with ExitStack() as stack:
        listener = stack.enter_context(bound(settings.host, settings.port))
        state, patience = settings.state, settings.state_timeout
        if state is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="incatalog-"))
            state = str(Path(folder) / "catalogs.sqlite")
        store = stack.enter_context(closing(CatalogStore(state, patience)))
        sessions = None
        if settings.sessions is not None:
            sessions = stack.enter_context(closing(SessionStore(settings.sessions, patience)))
        rates = None
        if settings.state is not None and (settings.rate or keys is not None):
            rates = stack.enter_context(closing(SharedRates(settings.state, _RATE_TIMEOUT)))
        with compiled_elsewhere():
            recommender = _recommender(settings, named, fields)
            names = list(named) or [own_name(recommender.catalog)]
            own = recommender.catalog.fingerprint
            guides = GuideChoices(settings, names, recommender.spec.trained, own)
            steerings = SteeringChoices(settings.encoder, guides)

            def guide(name: str, catalog: Catalog) -> Guide | None:
                found = guides.load(name, catalog)
                if found is None and not recommender.spec.trained and not guides.is_off(name):
                    return popular_guide(name, named[name], catalog)
                return found

            how = guide, fields, steerings.load
            domains = load_domains(recommender, named, store, *how)
        follower = None if settings.state is None else Follower(store, domains)
        engine = None
        if settings.engine == "vllm":
            from incatalog.vllm.started import engine_of

            asked: Any = {"rows": settings.batch, "arguments": settings.vllm}
            started = engine_of(recommender, settings.model, device=settings.device, **asked)
            engine = stack.enter_context(closing(started))
        kept = sessions, follower, rates
        service = ChatService(recommender, domains, settings, keys, *kept, engine)
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        items = ", ".join(f"{d.name} ({d.version.catalog.num_live})" for d in domains.values())

        def announce(address: str) -> None:
            device = "vLLM" if engine else recommender.engine.model.device
            where = f"{address} ({device})"
            what = f"{described(recommender.spec)} on {where}, items of {items}"
            console.print(f"incatalog: {what}", markup=False)
            for domain in domains.values():
                if guide := domain.version.recommender.guide:
                    shares = f"{guide.ranking:g} in rankings, {guide.listing:g} in lists and chats"
                    without = f"without history: {guide.empty}"
                    told = f"items of {domain.name} are guided, weight {shares}, {without}"
                    console.print(f"incatalog: {told}", markup=False)
            for domain in () if recommender.spec.trained else domains.values():
                guided = domain.version.recommender.guide is not None
                told = about(recommender.spec, guided=guided)
                console.print(f"incatalog: {domain.name}: {told}", style="yellow", markup=False)
            if engine:
                told = "items are written token by token, but where a guide decides alone"
                console.print(f"incatalog: {told} (docs/serving-vllm.md)", markup=False)
            if settings.state is None:
                note = "changes of catalogs end with this process; --state keeps them"
                console.print(f"incatalog: {note}")

        # What was accepted is answered or given up within `timeout`.
        grace, proxies = settings.timeout, settings.trusted_proxy
        serve_app(service.app(), listener, grace=grace, announce=announce, proxies=proxies)
    accepted, answered = service.telemetry.accepted, service.telemetry.answered
    console.print(f"incatalog: stopped; {accepted} requests accepted, {answered} answered")


def _recommender(
    settings: ServeSettings, named: dict[str, Path], fields: dict[str, str]
) -> Recommender:
    """The model with its catalog; a plain chat model takes the first domain's."""
    from incatalog.data.catalog import Catalog
    from incatalog.model.spec import spec_file
    from incatalog.recommender.opening import plain_recommender
    from incatalog.recommender.recommender import Recommender

    model, device, verify = settings.model, settings.device, settings.verify
    weights = settings.engine == "incatalog"
    if spec_file(model).exists():
        how: Any = {"device": device, "verify": verify, "guide": None, "weights": weights}
        how |= settings.named("wording", "system", "first_share")
        how["title_field"] = "" if named else fields.get("", "")
        return Recommender.from_pretrained(model, **how)
    if not named:
        why = "a plain chat model has no catalog; name one: --domain NAME=FOLDER"
        raise ConfigError(f"--model {model}: {why}")
    if not model.is_dir() and str(model) != "smollm2":
        raise BackboneError(f"--model {model}: no such folder")
    name, folder = next(iter(named.items()))
    catalog = Catalog.load(folder, name, fields.get(name))
    asked = settings.named("device", "verify", "wording", "system", "first_share")
    return plain_recommender(str(model), catalog, weights=weights, **asked)


def _check(settings: ServeSettings) -> dict[str, Path]:
    """The folders of the domains, if the settings can work."""
    from incatalog.dialogue.templates import asking_wording
    from incatalog.recommender.domain_flags import domain_folders

    if not settings.name or "/" in settings.name:
        raise ConfigError(f"--name: found {settings.name!r}; expected a name without a slash")
    for proxy in settings.trusted_proxy:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            # A name would not do: any client can claim to have it.
            why = f"an address or a network, such as 10.0.0.5 or 10.0.0.0/24 ({error})"
            raise ConfigError(f"--trusted-proxy {proxy}: expected {why}") from None
    for origin in settings.allow_image:
        # A space or a semicolon would add rules to the page's policy.
        if not _ORIGIN.fullmatch(origin):
            why = "expected an origin such as https://images.example.com, without a path"
            raise ConfigError(f"--allow-image {origin}: {why}")
    if settings.wording is not None:
        asking_wording(settings.wording)
    if settings.vllm and settings.engine != "vllm":
        raise ConfigError(f"--vllm {settings.vllm[0]}: is for --engine vllm; add that")
    if settings.engine == "vllm":
        from incatalog.vllm.async_engine import checked_arguments

        if settings.first_share is not None:
            why = "is about items found as a whole, and vLLM writes them token by token"
            raise ConfigError(f"--first-share {settings.first_share}: {why}; leave it out")

        require("vllm.version", extra="vllm")
        checked_arguments(settings.vllm)
    if settings.trace:
        require("opentelemetry.trace", extra="otel")
    if settings.keys is None and not _is_this_machine(settings.host):
        why = "others could reach the service without a key; give --keys FILE"
        raise ConfigError(f"--host {settings.host}: {why}")
    for flag in ("state", "sessions"):
        if (address := getattr(settings, flag)) is not None:
            check_address(f"--{flag}", address)
    return domain_folders(settings.domain)


def _title_fields(settings: ServeSettings, named: Collection[str]) -> dict[str, str]:
    """The title field of each domain for which one is given; of the model's own under no name."""
    found: dict[str, str] = {}
    for value in settings.title_field:
        name, equals, field = value.partition("=")
        if equals and name not in named:
            known = f"with one of the domains {', '.join(named)}" if named else "with --domain"
            raise ConfigError(f"--title-field {value}: expected FIELD, or NAME=FIELD {known}")
        for own in (name,) if equals else named or ("",):
            if own in found:
                raise ConfigError(f"--title-field {value}: given twice{own and ' for '}{own}")
            found[own] = field if equals else value
    return found


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
