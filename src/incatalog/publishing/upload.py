"""One commit on the Hugging Face hub: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError

from incatalog.artifacts import versions
from incatalog.errors import ConfigError, HubError, first_line
from incatalog.model.hub import bars_for_people, hub_errors, hub_fault

_MAIN = "main"
# What is taken off the hub where the folder has it no more; pages and pictures of others stay.
_MANAGED = ("*.safetensors", "*.json", "*.jsonl", "*.parquet", "*.jinja", "*.item2id", "guide/*")
_FORBIDDEN = (401, 403)
_MOVED = (409, 412)


class Published(NamedTuple):
    """What became of a publication."""

    address: str
    commit: str
    removed: tuple[str, ...]  # files that the folder has no more
    new: bool  # False where the hub had all of it already


@dataclass(frozen=True)
class HubTarget:
    """A repository of models on the hub, and who writes to it."""

    name: str
    revision: str | None
    private: bool

    @property
    def address(self) -> str:
        """Where people look at it."""
        where = f"/tree/{self.revision}" if self.revision not in (None, _MAIN) else ""
        return f"{constants.ENDPOINT}/{self.name}{where}"

    def check_access(self) -> None:
        """Refuses to begin where the hub may not be asked, or nobody has logged in.

        Raises:
            ConfigError: One of both is so.
        """
        if constants.HF_HUB_OFFLINE:
            raise ConfigError(f"--to {self.name}: HF_HUB_OFFLINE is set; unset it, or --dry-run")
        if not get_token():
            why = "nobody is logged in; set HF_TOKEN, or run `hf auth login`"
            raise ConfigError(f"--to {self.name}: {why}, with a token that may write")

    def publish(self, files: Mapping[str, Path | bytes], message: str) -> Published:
        """Sends files as one commit, which nobody sees before it is whole.

        Raises:
            HubError: The hub refuses, or the connection breaks; says what became of it.
        """
        api, revision = self._api(), self.revision or _MAIN
        with self._asking():
            self._open(api)
            info = api.model_info(self.name, revision=revision)
            before, there = str(info.sha), [one.rfilename for one in info.siblings or ()]
        removed = tuple(
            name
            for name in there
            if name not in files and any(fnmatch(name, one) for one in _MANAGED)
        )
        operations: list[Any] = [
            CommitOperationAdd(name, found if isinstance(found, bytes) else str(found))
            for name, found in files.items()
        ]
        operations += [CommitOperationDelete(name) for name in removed]
        # Refused by the hub if somebody else has published meanwhile.
        how: dict[str, Any] = {"revision": revision, "parent_commit": before}
        try:
            with bars_for_people():
                done = api.create_commit(self.name, operations, commit_message=message, **how)
        except hub_errors() as error:
            raise HubError(self._unsent(api, error, before)) from error
        with self._asking():
            held = set(api.list_repo_files(self.name, revision=done.oid))
        if lacking := sorted(files.keys() - held):
            why = f"the hub left out {lacking[0]}, by the rules of a .gitignore there"
            raise HubError(f"--to {self.name}: {why}; change these, then repeat the command")
        return Published(self.address, str(done.oid), removed, new=done.oid != before)

    def _api(self) -> HfApi:
        return HfApi(library_name="incatalog", library_version=versions().get("incatalog"))

    def _open(self, api: HfApi) -> None:
        """Makes the repository and the branch where they are not there yet; they stay empty."""
        # An organization may make what it has private by default.
        api.create_repo(self.name, private=self.private or None, exist_ok=True)
        if self.private and not api.model_info(self.name).private:
            told = "is public already, and would stay so; make it private on its page"
            raise HubError(f"--private: {self.name} {told}, or leave the flag out")
        if self.revision not in (None, _MAIN):
            api.create_branch(self.name, branch=str(self.revision), exist_ok=True)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except hub_errors() as error:
            raise HubError(f"--to {self.name}: {self._reason(error)}") from error

    def _reason(self, error: Exception) -> str:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if status in _FORBIDDEN:
            why = f"the hub refuses ({first_line(error)[:200]})"
            return f"{why}; log in with a token that may write there: HF_TOKEN, or `hf auth login`"
        return hub_fault(error, self.name, self.revision)

    def _unsent(self, api: HfApi, error: Exception, before: str) -> str:
        """What became of a commit that ended in an error."""
        place = f"--to {self.name}"
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if status in _MOVED:
            return f"{place}: somebody else published there meanwhile; repeat the command"
        if status in _FORBIDDEN:
            return f"{place}: nothing was published: {self._reason(error)}"
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
        try:
            now = api.model_info(self.name, revision=self.revision or _MAIN).sha
        except hub_errors():
            told = f"cannot tell whether it was published; look at {self.address}"
        else:
            told = "nothing was published" if now == before else "it was published all the same"
        again = "to repeat the command is harmless, and what has arrived is not sent again"
        return f"{place}: the upload broke ({why}): {told}; {again}"
