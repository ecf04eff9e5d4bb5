"""Records what other people's clients send to a service, for `tests/serving/test_clients.py`.

Each client is a real package in an environment of its own, and a script here that uses it as its
users do. It talks to a proxy, which writes every request down and hands it to a service that runs:

    python -m venv /tmp/langchain && /tmp/langchain/bin/pip install langchain-openai
    incatalog serve --model runs/demo/cgen --domain films=runs/demo/data --port 8000 &
    python tests/clients/record.py http://127.0.0.1:8000 langchain /tmp/langchain/bin/python

Writes `tests/clients/recorded/langchain.json`: the versions of the packages, and the requests with
the status of their answers. The clients: langchain (langchain-openai), litellm (litellm; some
releases were tampered with, so take one by its number), llama_index
(llama-index-llms-openai-like) and open_webui (open-webui).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_HERE = Path(__file__).parent
_LONG = 160
_TITLES = {"langchain": ("langchain-openai", "langchain-core", "openai"),
           "litellm": ("litellm", "openai"),
           "llama_index": ("llama-index-llms-openai-like", "llama-index-core", "openai"),
           "open_webui": ("open-webui",)}  # fmt: skip
_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


def shortened(sent: Any) -> Any:
    """What was sent, of long texts only the beginning: they are the words of somebody else."""
    if isinstance(sent, dict):
        return {name: shortened(one) for name, one in sent.items()}
    if isinstance(sent, list):
        return [shortened(one) for one in sent]
    return f"{sent[:_LONG]}…" if isinstance(sent, str) and len(sent) > _LONG else sent


class _Proxy(BaseHTTPRequestHandler):
    """Hands requests on; the first part of a path says what they are about: `/chat/v1/models`."""

    server: Any

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        # LiteLLM asks for the models below the host, whatever it is told.
        sent_to = self.path if not self.path.startswith("/v1/") else f"/models{self.path}"
        _, about, path = sent_to.split("/", 2)
        address = urlsplit(self.server.service)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=600)
        headers = {"Content-Type": "application/json"} if sent else {}
        connection.request(self.command, f"/{path}", sent or None, headers)
        answer = connection.getresponse()
        request = {"about": about, "method": self.command, "path": f"/{path}"}
        body = {"body": shortened(json.loads(sent))} if sent else {}
        self.server.requests.append(request | body | {"status": answer.status})
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Connection", "close")
        self.end_headers()
        while part := answer.read1():
            self.wfile.write(part)
            self.wfile.flush()
        self.close_connection = True

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def record(service: str, client: str, python: str) -> None:
    """Writes down what a client sends to a service."""
    proxy: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    proxy.service, proxy.requests = service, []
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    command = [python, str(_HERE / f"{client}_client.py"), f"http://127.0.0.1:{proxy.server_port}"]
    subprocess.run(command, check=True)
    proxy.shutdown()
    told = [python, "-c", _VERSIONS, *_TITLES[client]]
    versions = json.loads(subprocess.run(told, check=True, capture_output=True, text=True).stdout)
    found = {"versions": versions, "requests": proxy.requests}
    path = _HERE / "recorded" / f"{client}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stderr.write(f"{path}: {len(proxy.requests)} requests\n")


if __name__ == "__main__":
    record(*sys.argv[1:])
