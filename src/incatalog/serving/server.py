"""The process that serves a model: `incatalog serve`."""

from __future__ import annotations

import ipaddress
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from incatalog.errors import BackboneError, ConfigError, require
from incatalog.serving.memory import compiled_elsewhere, give_memory_back, import_lean
from incatalog.serving.settings import ServeSettings
from incatalog.web.listener import bound, serve_app

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender


def serve(settings: ServeSettings) -> None:
    """Serves until SIGTERM or SIGINT, then answers what it has accepted and returns.

    Raises:
        ConfigError: A setting cannot work, or the port is taken.
        DataError: A catalog is missing or broken.
        BackboneError: The model is.
        MissingExtraError: FastAPI, uvicorn or the Prometheus client is not installed.
    """
    for package in ("fastapi", "prometheus_client", "uvicorn"):
        require(package, extra="serve")
    give_memory_back()
    import_lean()
    from incatalog.model.spec import described, untrained_warning
    from incatalog.serving.access import Keys
    from incatalog.serving.catalogs import load_domains
    from incatalog.serving.service import ChatService
    from incatalog.serving.sessions import SessionStore
    from incatalog.serving.store import CatalogStore

    named = _check(settings)
    keys = None if settings.keys is None else Keys.load(settings.keys)
    with ExitStack() as stack:
        listener = stack.enter_context(bound(settings.host, settings.port))
        state = settings.state
        if state is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="incatalog-"))
            state = Path(folder) / "catalogs.sqlite"
        store = CatalogStore(state)
        stack.callback(store.close)
        sessions = None
        if settings.sessions is not None:
            sessions = SessionStore(settings.sessions)
            stack.callback(sessions.close)
        with compiled_elsewhere():
            recommender = _recommender(settings, named)
            domains = load_domains(recommender, named, store)
        service = ChatService(recommender, domains, settings, keys, sessions)
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        items = ", ".join(f"{d.name} ({d.version.catalog.num_live})" for d in domains.values())

        def announce(address: str) -> None:
            console.print(
                f"incatalog: {described(recommender.spec)} on {address} "
                f"({recommender.engine.model.device}), items of {items}",
                markup=False,
            )
            warning = untrained_warning(recommender.spec)
            if warning is not None:
                console.print(f"incatalog: {warning}", style="yellow", markup=False)
            if settings.state is None:
                console.print(
                    "incatalog: changes of catalogs end with this process; --state keeps them"
                )

        # Whatever was accepted is answered or given up within `timeout`.
        serve_app(
            service.app(),
            listener,
            grace=settings.timeout,
            announce=announce,
            proxies=settings.trusted_proxy,
        )
    counts = service.telemetry
    console.print(
        f"incatalog: stopped; {counts.accepted} requests accepted, {counts.answered} answered"
    )


def _recommender(settings: ServeSettings, named: dict[str, Path]) -> Recommender:
    """The model with its catalog; a chat model that is none of ours takes that of a domain."""
    from incatalog.data.catalog import Catalog
    from incatalog.model.backbone import load_backbone
    from incatalog.model.spec import ModelSpec, spec_file
    from incatalog.packed.model import PackedModel
    from incatalog.recommender.recommender import Recommender

    if spec_file(settings.model).exists():
        return Recommender.from_pretrained(
            settings.model, device=settings.device, verify=settings.verify
        )
    if not named:
        raise ConfigError(
            f"--model {settings.model}: a plain chat model has no catalog; name one: "
            "--domain NAME=FOLDER"
        )
    if not settings.model.is_dir() and str(settings.model) != "smollm2":
        raise BackboneError(f"--model {settings.model}: no such folder")
    name, folder = next(iter(named.items()))
    backbone = load_backbone(settings.model, device=settings.device, verify=settings.verify)
    backbone.model.eval()
    spec = ModelSpec(base=str(settings.model), trained=False)
    packed = PackedModel(backbone.model, frozen=True)
    return Recommender(backbone, spec, Catalog.load(folder, name), packed=packed)


def _check(settings: ServeSettings) -> dict[str, Path]:
    """The folders of the domains, if the settings can work."""
    if not settings.name or "/" in settings.name:
        raise ConfigError(f"--name: found {settings.name!r}; expected a name without a slash")
    for proxy in settings.trusted_proxy:
        _check_proxy(proxy)
    if settings.keys is None and not _is_this_machine(settings.host):
        raise ConfigError(
            f"--host {settings.host}: others could reach the service without a key; "
            "give --keys FILE"
        )
    if _same(settings.state, settings.sessions):
        raise ConfigError(
            f"--sessions {settings.sessions}: is the file of --state; give each a file of its own"
        )
    named: dict[str, Path] = {}
    for pair in settings.domain:
        name, equals, folder = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--domain {pair}: expected NAME=FOLDER")
        if name in named:
            raise ConfigError(f"--domain {name}: given twice")
        if not Path(folder).is_dir():
            raise ConfigError(f"--domain {name}: no such folder: {folder}")
        named[name] = Path(folder)
    return named


def _check_proxy(proxy: str) -> None:
    """Makes sure that a proxy is named by its address: anyone may say to have a name."""
    try:
        ipaddress.ip_network(proxy)
    except ValueError as error:
        raise ConfigError(
            f"--trusted-proxy {proxy}: expected an address or a network, such as 10.0.0.5 or "
            f"10.0.0.0/24 ({error})"
        ) from None


def _same(one: Path | None, other: Path | None) -> bool:
    return one is not None and other is not None and one.resolve() == other.resolve()


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
