"""Settings of the commands of `teacher_service`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incatalog.config import NonNegativeFloat, Port, Positive, PositiveFloat, Settings


@dataclass(frozen=True)
class TeacherServeSettings(Settings):
    """Answer for a fitted teacher over HTTP, in the published wire format.

    Example:
        incatalog teacher serve --model runs/teacher --data data
    """

    model: Path
    """Run folder of the teacher."""
    data: Path
    """Folder of the prepared data it was fitted on."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 2068
    """Port to listen on; 0 takes a free one and says which."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    max_batch: Positive = 256
    """Histories answered together at most."""
    max_wait: NonNegativeFloat = 0.002
    """Seconds a question waits for others to join, unless it asks to be answered immediately."""
    max_queue: Positive = 8192
    """Histories that may wait; beyond them the answer is 429 with Retry-After."""
    timeout: PositiveFloat = 30.0
    """Seconds until an answer is given up (504), or a body that does not arrive (408)."""
    max_k: Positive = 1000
    """Items a history may ask for."""
    max_rows: Positive = 1024
    """Histories of a request at most."""
    max_body: Positive = 4_194_304
    """Bytes of a request at most."""
