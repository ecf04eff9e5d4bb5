"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TeacherServeConfig:
    """Answer for a fitted teacher over HTTP, in the published wire format.

    Attributes:
        model: Run folder of the teacher.
        data: Folder of the prepared data it was fitted on.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one and says which.
        device: Device to run on; auto takes CUDA where there is one.
        max_batch: Histories answered together at most.
        max_wait: Seconds a question waits for others to join; one that is to be answered
            immediately does not wait.
        max_queue: Histories that may wait; beyond them the answer is 429 with Retry-After.
        timeout: Seconds until an answer is given up (504), or a body that does not arrive (408).
        max_k: Items a history may ask for.
        max_rows: Histories of a request at most.
        max_body: Bytes of a request at most.
    """

    model: Path
    data: Path
    host: str = "127.0.0.1"
    port: int = 2068
    device: str = "auto"
    max_batch: int = 256
    max_wait: float = 0.002
    max_queue: int = 8192
    timeout: float = 30.0
    max_k: int = 1000
    max_rows: int = 1024
    max_body: int = 4_194_304
