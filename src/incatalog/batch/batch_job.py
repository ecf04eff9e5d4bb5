"""A folder of lists: what it belongs to, which are made, and making those that are left."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from incatalog.artifacts import Run, fingerprint, open_shared_run, read_json, write_json
from incatalog.batch.claims import Claim, Claims
from incatalog.batch.list_makers import ListMaker, known_items
from incatalog.batch.settings import BatchSettings
from incatalog.batch.shard_folder import Block, ShardFolder, Tally
from incatalog.batch.user_check import check_users
from incatalog.batch.user_table import Shard, UserTable
from incatalog.checksums import file_checksums
from incatalog.data.catalog import Catalog
from incatalog.errors import ConfigError
from incatalog.model.pretrained import source_of
from incatalog.progress import Report, time_left
from incatalog.recommender.opening import PACKAGED, ModelKind
from incatalog.recommender.settings import GUIDE_FILE, OFF, OWN
from incatalog.teacher_service.client import is_url, open_served

STAGE = "batch"
_CHECKED, _CHECK = "checked.json", "check"
# What cannot change a list, and what is known by its contents wherever it lies.
_FREE = ("device", "verify", "batch_size", "on", "workers", "lease")
_BY_CONTENTS = ("histories", "model", "data", "guide")
_SECONDS_BETWEEN_TRIES = 0.5
_SECONDS_BETWEEN_LOOKS = 2.0


@dataclass(frozen=True)
class BatchJob:
    """The lists of one command, as one of the processes that make them sees them."""

    settings: BatchSettings
    table: UserTable
    catalog: Catalog
    run: Run
    folder: ShardFolder
    claims: Claims

    @classmethod
    def open(
        cls, settings: BatchSettings, kind: ModelKind, catalog: Catalog, table: UserTable
    ) -> BatchJob:
        """Opens the folder, new or begun by this process or others.

        Raises:
            ArtifactError: It belongs to other settings, another model, catalog or table.
            ConfigError: There is no such guide.
        """
        model = source_of(settings.model) if kind == "chat" else settings.model
        identities = {
            "histories": fingerprint(table.files),
            "model": _digest(file_checksums(model)),
            "catalog": _catalog_identity(catalog),
            "guide": _guide_identity(settings, kind, catalog),
        }
        free = (*_FREE, *_BY_CONTENTS)
        run = open_shared_run(
            settings.out, STAGE, settings, identities=identities, free_fields=free
        )
        folder = ShardFolder(settings.out, table.id_type, catalog.fingerprint)
        return cls(settings, table, catalog, run, folder, Claims(settings.out, settings.lease))

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards."""
        return self.table.shards(self.settings.shard_users)

    @property
    def left(self) -> list[Shard]:
        """The shards that are not done, by whichever process."""
        done = self.folder.done()
        return [shard for shard in self.shards if shard.name not in done]

    def check(self) -> None:
        """Looks at every row of the table, unless a process that shares the folder has done so.

        Raises:
            DataError: A row is broken, or a user stands in two.
        """
        path = self.settings.out / _CHECKED
        while not path.exists():
            claim = self.claims.take(_CHECK)
            if claim is None:
                time.sleep(_SECONDS_BETWEEN_TRIES)
                continue
            try:
                if not path.exists():
                    check_users(self.table)
                    write_json(path, {"users": self.table.users, "shards": len(self.shards)})
            finally:
                claim.release()

    def work(self, maker: ListMaker, report: JobReport) -> None:
        """Makes shards that nobody else makes until all are done; the last ones may be others'.

        Raises:
            IncatalogError: A list cannot be made; what is done stays.
        """
        while left := self.left:
            report.look(left)
            found = self._claimed(left)
            if found is None:
                time.sleep(_SECONDS_BETWEEN_TRIES)
                continue
            shard, claim = found
            try:
                self.folder.remove_partial(shard)
                self.folder.write(shard, self._blocks(shard, maker, report))
            finally:
                claim.release()

    def finish(self) -> Tally:
        """Ends the run, once all shards are done; several processes may.

        Raises:
            ArtifactError: A file of lists is damaged.
        """
        tally = self.folder.tally(self.shards)
        self.claims.clear()
        self.run.finish(
            users=tally.users,
            shards=len(self.shards),
            short=tally.short,
            empty=tally.empty,
            unknown=tally.unknown,
        )
        return tally

    def _claimed(self, left: list[Shard]) -> tuple[Shard, Claim] | None:
        """A shard that is now this process's; None while others have all that are left."""
        # Each begins elsewhere, so that many do not try for the same one after the other.
        start = int(self.claims.token, 16) % len(left)
        for shard in [*left[start:], *left[:start]]:
            claim = self.claims.take(shard.name)
            if claim is None:
                continue
            if shard.name not in self.folder.done():
                return shard, claim
            claim.release()
        return None

    def _blocks(self, shard: Shard, maker: ListMaker, report: JobReport) -> Iterator[Block]:
        k = self.settings.k
        for rows in self.table.rows(shard, self.settings.batch_size):
            pairs = [known_items(user, self.catalog) for user in rows]
            users, unknown = [user for user, _ in pairs], [one for _, ids in pairs for one in ids]
            lists = maker.lists(users)
            lengths = list(map(len, lists))
            short, empty = sum(length < k for length in lengths), lengths.count(0)
            named = tuple(dict.fromkeys(unknown))[:3]
            yield users, lists, Tally(len(users), short, empty, len(unknown), named)
            report.made(len(users))


class JobReport(Report):
    """How many users of the whole folder have their lists, whoever makes them."""

    def __init__(self, job: BatchJob, console: Console | None = None) -> None:
        """Prepares the report."""
        self._total = job.table.users
        columns = MofNCompleteColumn(), TimeRemainingColumn()
        super().__init__("lists", self._total, *columns, console=console)
        self._began = time.monotonic()
        self._of, self._before, self._done, self._own = job, -1, 0, 0
        self._looked = self._began

    def look(self, left: list[Shard]) -> None:
        """Counts the shards that are done; those that are left are given."""
        self._done, self._own = self._total - sum(shard.count for shard in left), 0
        self._looked = time.monotonic()
        if self._before < 0:
            self._before = self._done
            if self._done:
                self.console.print(f"lists: {self._done} of {self._total} users are done")
        self._tell()

    def made(self, users: int) -> None:
        """Counts users of a shard that is being made here."""
        if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            own = self._own
            self.look(self._of.left)
            self._own = own
        self._own += users
        self._tell()

    def _tell(self) -> None:
        done = self._done + self._own
        line, new = "", done - self._before
        if new > 0 and done < self._total:
            left = time_left(self._began, new, self._total - self._before)
            line = f"{done} of {self._total} users, {left} left"
        self.show(line, completed=done)


def rooted(settings: BatchSettings) -> BatchSettings:
    """The same settings with paths that hold in every folder."""
    changed: dict[str, Any] = {
        name: getattr(settings, name).resolve() for name in ("histories", "out")
    }
    if settings.data is not None:
        changed["data"] = settings.data.resolve()
    for name in ("model", "guide"):
        if getattr(settings, name) != PACKAGED and Path(getattr(settings, name)).is_dir():
            changed[name] = str(Path(getattr(settings, name)).resolve())
    return replace(settings, **changed)


def tell_unread(table: UserTable) -> None:
    """Says which columns nobody looks at: one may be a mistyped one."""
    if table.unread:
        sys.stderr.write(f"notice: {table.files[0]}: not read: {', '.join(table.unread)}\n")


def _guide_identity(settings: BatchSettings, kind: ModelKind, catalog: Catalog) -> str:
    """What stands for the answers of a guide, which the model's own is part of."""
    guide = settings.guide
    if kind == "teacher" or guide == OFF:
        return OFF
    own = Path(settings.model) / GUIDE_FILE
    if guide == OWN and own.exists():
        told = read_json(own)
        served = told.get("teacher") if isinstance(told, Mapping) else None
        guide = served if isinstance(served, str) and is_url(served) else OWN
    if guide == OWN:
        return OWN
    if is_url(guide):
        return open_served(guide, catalog).fingerprint
    if not Path(guide).is_dir():
        expected = "expected the run folder of a teacher, the URL of a served one, own or off"
        raise ConfigError(f"--guide {guide}: no such folder; {expected}")
    return _digest(file_checksums(guide))


def _catalog_identity(catalog: Catalog) -> str:
    """A digest of all that lists depend on in a catalog."""
    digest = hashlib.sha256(catalog.fingerprint.encode())
    for item in catalog.live_items:
        known = [item.categories, dict(item.attributes), item.boost, item.boost_until]
        digest.update(json.dumps(known, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _digest(record: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
