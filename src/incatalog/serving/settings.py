"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServeConfig:
    """Chat and recommend over HTTP: an OpenAI-compatible service and its web page.

    Attributes:
        model: Folder of a trained model, or a chat model that is none of ours yet.
        domain: Catalogs as NAME=FOLDER, the flag once for each; the model's own if none is given.
        name: Name of the model in requests.
        host: Address to listen on; any but this machine's own needs --keys.
        port: Port to listen on; 0 takes a free one and says which.
        device: Device to run on; auto takes CUDA where there is one.
        verify: Check the model's files against the checksums recorded when it was trained;
            false loads huge models sooner.
        state: SQLite file that keeps changes of the catalogs; without one they end with the
            process.
        sessions: SQLite file that keeps conversations, for requests that name one; none are kept
            without.
        keys: JSON file of the API keys' hashes; without one nobody is asked for a key.
        rate: Requests a minute each key (each address, without keys) may send; 0 for any number.
        allow_origin: Web origins whose pages may send requests from a browser; none by default.
        allow_host: Names the service is reached by, besides those of this machine.
        trusted_proxy: Addresses or networks of proxies in front of it, the flag once for each;
            whose requests come from the address their X-Forwarded-For says. None by default.
        batch: Answers that grow side by side at most.
        queue: Requests that may wait; beyond them the answer is 429 with Retry-After.
        max_tokens: Tokens of an answer at most, and where a request does not say.
        max_messages: Messages of a conversation at most.
        max_characters: Characters of a conversation at most.
        max_history: Items of a history, or of exclusions, at most.
        max_k: Items that may be asked for.
        max_body: Bytes of a request at most.
        timeout: Seconds until an answer is given up (504), or a body that does not arrive (408).
        trace: Tell OpenTelemetry about requests, with what its own environment variables say.
    """

    model: Path
    domain: tuple[str, ...] = ()
    name: str = "incatalog"
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    verify: bool = True
    state: Path | None = None
    sessions: Path | None = None
    keys: Path | None = None
    rate: int = 0
    allow_origin: tuple[str, ...] = ()
    allow_host: tuple[str, ...] = ()
    trusted_proxy: tuple[str, ...] = ()
    batch: int = 64
    queue: int = 256
    max_tokens: int = 512
    max_messages: int = 200
    max_characters: int = 100_000
    max_history: int = 1000
    max_k: int = 100
    max_body: int = 1_048_576
    timeout: float = 120.0
    trace: bool = False
