"""`incatalog chat`: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from incatalog.data.catalog import Catalog
from incatalog.errors import ConfigError
from incatalog.model.hub import with_model_here
from incatalog.names import names
from incatalog.recommender.domain_flags import by_domain, domain_folders
from incatalog.recommender.opening import catalog_of, model_kind, open_domains
from incatalog.recommender.settings import OWN
from incatalog.terminal.screen import Screen
from incatalog.terminal.session import ChatSession
from incatalog.terminal.settings import ChatSettings
from incatalog.web.service_key import service_key

if TYPE_CHECKING:
    from incatalog.terminal.talker import Talker

_PROMPT = "> "
_LEAVE = "Ctrl-C again leaves, and so does /quit"


def chat(settings: ChatSettings) -> None:
    """Talks until the input ends, or until one leaves.

    Each line is a question or a command. Where input or output is no terminal, nothing but answers
    is written to standard output: no prompts, no colours.

    Raises:
        ConfigError: A setting cannot work.
        DataError: A catalog is missing or broken.
        ServiceError: Nobody answers at the address.
    """
    settings.refuse_first([
        (bool(settings.model) == bool(settings.url), "--model, --url",
         "expected one of them: a model's folder or smollm2, or the address of a service"),
        (bool(settings.url) and len(settings.domain) > 1, "--domain",
         "with --url, expected the name of one catalog to begin with"),
        (bool(settings.model) and settings.key_file is not None, "key_file",
         "is the key of a service; leave it out, or give --url"),
        *((bool(settings.url) and given, flag, "is the service's own business; leave it out")
          for flag, given in (
              ("--guide", bool(settings.guide)),
              ("--encoder", settings.encoder != "words"),
              ("--guide-weight", settings.guide_weight is not None),
              ("--wording", settings.wording is not None),
              ("--system", settings.system is not None),
              ("--first-share", settings.first_share is not None))),
    ])  # fmt: skip
    screen = Screen()
    talker = _remote(settings) if settings.url else _local(settings)
    session = ChatSession(talker, screen)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    where = f", about {session.domain}" if session.domain else ""
    hint = "; /help lists the commands" if interactive else ""
    screen.note(f"{talker.described}{where}{hint}")
    for name in names("--history", settings.history, ()):
        session.take(name)
    for line in _typed(screen) if interactive else sys.stdin:
        try:
            if not session.line(line):
                break
        except KeyboardInterrupt:
            screen.note("stopped")


def _typed(screen: Screen) -> Iterator[str]:
    """Lines that someone types, who can edit them and go back to earlier ones."""
    with contextlib.suppress(ImportError):
        # Python's own line editor; what it knows of earlier lines stays in this process.
        import readline  # noqa: F401
    warned = False
    while True:
        try:
            yield input(_PROMPT)
            warned = False
        except EOFError:
            screen.line("")
            return
        except KeyboardInterrupt:
            screen.line("")
            if warned:
                return
            warned = True
            screen.note(_LEAVE)


def _remote(settings: ChatSettings) -> Talker:
    from incatalog.terminal.remote_talker import RemoteTalker

    domain = settings.domain[0] if settings.domain else ""
    how: dict[str, Any] = {"max_tokens": settings.max_tokens, "seed": settings.seed}
    how["temperature"] = settings.temperature
    if settings.voice != "auto":
        how["voice"] = settings.voice
    return RemoteTalker(settings.url, domain, service_key(settings.key_file), **how)


def _local(settings: ChatSettings) -> Talker:
    settings = with_model_here(settings)
    kind = model_kind(settings.model)
    if kind == "teacher":
        why = "is a teacher, which holds no conversations; give it as --guide of a chat model"
        raise ConfigError(f"--model {settings.model}: {why}")
    folders = domain_folders(settings.domain)
    if not folders and kind == "chat":
        why = "a chat model that was never trained has no catalog; add --domain NAME=FOLDER"
        raise ConfigError(f"--model {settings.model}: {why}")
    field = settings.title_field or None
    catalogs = {
        name: Catalog.load(folder, name, field if kind == "chat" else None)
        for name, folder in folders.items()
    }
    if not catalogs:
        own = catalog_of(settings.model, kind, None, settings.title_field)
        catalogs = {own.name: own}
    guides = by_domain("--guide", settings.guide, list(catalogs))
    asked = settings.named(
        "guide_weight", "encoder", "device", "verify", "wording", "system", "first_share"
    )
    recommenders = open_domains(
        settings.model, kind, catalogs, folders, {n: guides.get(n, OWN) for n in catalogs}, **asked
    )

    from incatalog.terminal.local_talker import LocalTalker

    return LocalTalker(recommenders, **settings.named("max_tokens", "voice", "temperature", "seed"))
