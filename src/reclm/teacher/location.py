"""Where a teacher is: in a run folder, or at the address of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reclm.data.catalog import Catalog
    from reclm.teacher.client import Teacher


def is_url(location: str) -> bool:
    """Whether a teacher is named by the address of a service rather than by a folder."""
    return location.startswith(("http://", "https://"))


def open_teacher(location: str, catalog: Catalog, device: str = "auto") -> Teacher:
    """Loads a teacher from its run folder, or connects to the service at an address.

    Args:
        location: Run folder of `reclm teacher fit`, or the URL of `reclm teacher serve`.
        catalog: The catalog it was fitted on.
        device: Device a loaded teacher runs on; a service has its own.

    Raises:
        TeacherError: No teacher there, damaged files, or another catalog.
        MissingExtraError: A service is named and httpx is not installed.
    """
    if is_url(location):
        from reclm.teacher.http import HttpTeacher

        return HttpTeacher(location, catalog)
    from reclm.teacher.client import load_teacher

    return load_teacher(location, catalog, device)
