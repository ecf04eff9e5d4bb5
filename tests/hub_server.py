"""A server that speaks the Hugging Face hub's protocol, as far as models need it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
_LFS = (".safetensors",)


def git_hash(content: bytes) -> str:
    """The id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """Commits of one model; a commit is all its files."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        text = json.dumps([message, len(self.commits), sorted(files)])
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        self.messages.append(message)
        return commit

    def resolved(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class Hub:
    """What the server holds, what it was asked, and how it misbehaves."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by their SHA-256
    requests: list[tuple[str, str]] = field(default_factory=list)
    # Cut the connection after so many bytes of the next large files; None never does.
    cut_after: int | None = None
    # Cut the connection in the middle of a commit, or when it is made and before it is answered.
    cut_commit: str = ""
    # Somebody else's commit that comes in between.
    meanwhile: dict[str, bytes] | None = None
    ignored: tuple[str, ...] = ()

    def asked(self, pattern: str) -> list[tuple[str, str]]:
        return [one for one in self.requests if re.search(pattern, " ".join(one))]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, value: Any, status: int = 200, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    @property
    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        for method, pattern, act in _ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                if method in ("POST", "PUT") and not self._authorized and act != "put":
                    self._body()
                    self._refuse(401, "", "Invalid username or password.")
                    return
                getattr(self, f"_{act}")(*found.groups())
                return
        self._body()
        self._refuse(404, "", f"no such page: {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _readable(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self._authorized):
            # The real one says 401 to those who have not logged in, whether it is there or not.
            self._refuse(404, "RepoNotFound", "Repository not found")
            return None
        return found

    def _create(self) -> None:
        asked = json.loads(self._body())
        name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
        if name in self.hub.repositories:
            self._answer({"error": "You already created it", "url": f"{self.hub.url}/{name}"}, 409)
            return
        made = self.hub.repositories[name] = Repository(
            private=asked.get("visibility") == "private"
        )
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self._answer({"url": f"{self.hub.url}/{name}", "name": name, "id": "1"})

    def _info(self, name: str, revision: str | None = None) -> None:
        repository = self._readable(name)
        if repository is None:
            return
        commit = repository.resolved(revision or "main")
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = [{"rfilename": path} for path in sorted(repository.commits[commit])]
        told = {"id": name, "sha": commit, "private": repository.private, "siblings": files}
        self._answer({**told, "gated": "manual" if repository.gated else False})

    def _tree(self, name: str, revision: str) -> None:
        repository = self._readable(name)
        if repository is None:
            return
        commit = repository.resolved(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        entries = []
        for path, content in sorted(repository.commits[commit].items()):
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
            entry["oid"] = git_hash(content)
            if path.endswith(_LFS):
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self._answer(entries)

    def _preupload(self, name: str, revision: str) -> None:
        asked = json.loads(self._body())["files"]
        repository = self.hub.repositories[name]
        there = repository.files(revision)
        found = []
        for one in asked:
            path, known = one["path"], there.get(one["path"])
            large = path.endswith(_LFS)
            oid = None
            if known is not None:
                oid = hashlib.sha256(known).hexdigest() if large else git_hash(known)
            mode = "lfs" if large else "regular"
            ignored = path in self.hub.ignored
            found.append({"path": path, "uploadMode": mode, "shouldIgnore": ignored, "oid": oid})
        self._answer({"files": found})

    def _batch(self, name: str) -> None:
        objects = []
        for one in json.loads(self._body())["objects"]:
            known = one["oid"] in self.hub.stored
            href = {"upload": {"href": f"{self.hub.url}/stored/{one['oid']}", "header": {}}}
            objects.append(one if known else {**one, "actions": href})
        self._answer({"transfer": "basic", "objects": objects})

    def _put(self, oid: str) -> None:
        if self.hub.cut_after is not None:
            self.rfile.read(min(self.hub.cut_after, int(self.headers["Content-Length"])))
            self._cut()
            return
        content = self._body()
        if hashlib.sha256(content).hexdigest() != oid:
            self._refuse(400, "", "not the file that was announced")
            return
        self.hub.stored[oid] = content
        self._answer({})

    def _validate(self) -> None:
        self._body()
        self._answer({"errors": [], "warnings": []})

    def _branch(self, name: str, branch: str) -> None:
        self._body()
        repository = self.hub.repositories[name]
        if branch in repository.branches:
            self._refuse(409, "", "Reference already exists")
            return
        repository.branches[branch] = repository.branches["main"]
        self._answer({})

    def _commit(self, name: str, revision: str) -> None:
        if self.hub.cut_commit == "middle":
            self.rfile.read(100)
            self._cut()
            return
        repository = self.hub.repositories[name]
        if self.hub.meanwhile is not None:
            repository.commit(revision, self.hub.meanwhile, "somebody else's")
            self.hub.meanwhile = None
        files, message = dict(repository.files(revision)), ""
        for line in self._body().splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "header":
                message = value["summary"]
                parent = value.get("parentCommit")
                if parent is not None and parent != repository.branches[revision]:
                    self._refuse(412, "", "A commit has happened since. Please refresh")
                    return
            elif one["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif one["key"] == "deletedFile":
                del files[value["path"]]
            else:
                self._refuse(400, "", f"unknown operation {one['key']}")
                return
        commit = repository.commit(revision, files, message)
        if self.hub.cut_commit == "answer":
            self._cut()
            return
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._answer({"success": True, "commitOid": commit, "commitUrl": url})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._readable(name)
        if repository is None:
            return
        if repository.gated:
            self._refuse(403, "GatedRepo", "Access to this model is restricted")
            return
        commit = repository.resolved(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X_Repo_Commit": commit, "ETag": f'"{git_hash(content)}"'}
        if path.endswith(_LFS):
            headers["X_Linked_Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["X_Linked_Size"] = str(len(content))
        self._answer(content, **headers)


_REPOSITORY, _REVISION = r"([\w.-]+/[\w.-]+)", r"([\w.-]+)"
_ROUTES = (
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate"),
    ("GET", f"/api/models/{_REPOSITORY}", "info"),
    ("GET", f"/api/models/{_REPOSITORY}/revision/{_REVISION}", "info"),
    ("GET", f"/api/models/{_REPOSITORY}/tree/{_REVISION}/?", "tree"),
    ("POST", f"/api/models/{_REPOSITORY}/preupload/{_REVISION}", "preupload"),
    ("POST", f"/api/models/{_REPOSITORY}/branch/{_REVISION}", "branch"),
    ("POST", f"/api/models/{_REPOSITORY}/commit/{_REVISION}", "commit"),
    ("POST", rf"/{_REPOSITORY}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/stored/(\w+)", "put"),
    ("GET", f"/{_REPOSITORY}/resolve/{_REVISION}/(.+)", "resolve"),
    ("HEAD", f"/{_REPOSITORY}/resolve/{_REVISION}/(.+)", "resolve"),
)


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """A hub of its own, without models."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
