"""Two services behind nginx, by the file that is deployed: streams pass, and one may be killed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from benchmarks.replica_world import make_model

from chatting import Server

pytestmark = pytest.mark.long
_DEPLOYED = Path(__file__).resolve().parents[2] / "deploy/replicas/nginx.conf"


@contextmanager
def proxy(folder: Path, ports: list[int]) -> Iterator[str]:
    """nginx as it is deployed, in front of services on this machine; its address.

    Docker's name service is not here, so the services are named by their ports.
    """
    if (nginx := shutil.which("nginx")) is None:
        pytest.skip("no nginx on the path: apt-get install nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = _DEPLOYED.read_text()
    services = "".join(f"server 127.0.0.1:{one} max_fails=1 fail_timeout=2s;" for one in ports)
    text, named = re.subn(r"server incatalog:8000 resolve [^;]*;", services, text)
    text, resolved = re.subn(r"resolver [^;]*;", "", text)
    text, listened = re.subn(r"listen 8000;", f"listen 127.0.0.1:{port};", text)
    assert (named, resolved, listened) == (1, 1, 1)
    own = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {", f"http {{ access_log off; {own}", 1)
    config = folder / "nginx.conf"
    config.write_text(f"daemon off; pid {folder}/pid; user root;\n{text}")
    with (folder / "log").open("w") as log:
        running = subprocess.Popen([nginx, "-e", "stderr", "-c", config], stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                httpx.get(f"{address}/health")
                break
            except httpx.TransportError:
                assert running.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        running.terminate()
        running.wait(timeout=30)


def test_streams_pass_and_a_killed_service_is_not_missed(tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_model(model)
    state = [f"--{name}={tmp_path / 'state.sqlite'}" for name in ("state", "sessions")]
    how = [*state, "--trusted-proxy=127.0.0.1", "--allow-host=nginx", "--encoder=words"]
    flags = ["--model", model, "--domain", f"items={model}", *how]
    body = {
        "model": "incatalog/items",
        "messages": [{"role": "user", "content": "something"}],
        "k": 5,
        "session": "one",
        "stream": True,
    }
    with (
        Server(tmp_path / "first.log", *flags) as first,
        Server(tmp_path / "second.log", *flags) as second,
        proxy(tmp_path, [first.port, second.port]) as address,
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        for _ in range(4):
            with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                assert answer.status_code == 200, answer.read()
                lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
            assert lines[-1] == "data: [DONE]"
            assert len(lines) > 5
            found = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
            assert not any("error" in chunk for chunk in found)
        first.kill()
        answers = [
            http.post("/v1/chat/completions", json={**body, "stream": False}) for _ in "123456"
        ]
        assert [one.status_code for one in answers] == [200] * 6
        assert all(len(one.json()["items"]) == 5 for one in answers)
        second.kill()
        assert http.post("/v1/chat/completions", json=body).status_code == 502
