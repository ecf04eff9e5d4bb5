"""Open WebUI, a page for any service like OpenAI's: what its server asks when people chat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

URL, PORT = sys.argv[1], "8479"
MODEL = "incatalog/films"
ASKED = {"role": "user", "content": "Three films, please."}


def ask(path: str, body: Any = None, token: str = "") -> str:
    """An answer of Open WebUI's server."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return str(answer.read().decode())


def talk() -> None:
    """Chats as the page does, and has the title made that the page shows beside it."""
    signed = {"email": "admin@localhost", "password": "admin"}
    token = json.loads(ask("/api/v1/auths/signin", signed))["token"]
    names = [one["id"] for one in json.loads(ask("/api/models", token=token))["data"]]
    assert MODEL in names, names
    whole = {"model": MODEL, "messages": [ASKED], "stream": False}
    answer = json.loads(ask("/api/chat/completions", whole, token))["choices"][0]["message"]
    assert answer["content"], answer
    said = ask("/api/chat/completions", whole | {"stream": True}, token)
    chunks = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
    pieces = [one["delta"].get("content") or "" for each in chunks for one in each["choices"]]
    assert "".join(pieces) == answer["content"], said
    more = {"role": "user", "content": "And three more?"}
    turns = [ASKED, {"role": "assistant", "content": answer["content"]}, more]
    settings = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "seed": 1, "stop": ["END"]}
    asked = {"model": MODEL, "messages": turns, "stream": True, "params": settings}
    assert "data: " in ask("/api/chat/completions", asked, token)
    for task in ("title", "tags", "follow_up"):
        body = {"model": MODEL, "messages": turns[:2], "stream": False}
        assert json.loads(ask(f"/api/v1/tasks/{task}/completions", body, token))["choices"]


with tempfile.TemporaryDirectory() as folder:
    environment = os.environ | {
        "DATA_DIR": folder,
        "ENABLE_OLLAMA_API": "False",
        "HF_HUB_OFFLINE": "1",
        "OFFLINE_MODE": "True",
        "OPENAI_API_BASE_URL": f"{URL}/webui/v1",
        "OPENAI_API_KEY": "none",
        "RAG_EMBEDDING_ENGINE": "openai",  # loads no model
        "WEBUI_AUTH": "False",
        "WEBUI_SECRET_KEY": "secret",
    }
    command = [str(Path(sys.executable).parent / "open-webui"), "serve"]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", PORT], env=environment)
    try:
        while True:
            try:
                ask("/health")
                break
            except (OSError, urllib.error.URLError):
                assert process.poll() is None, "open-webui has ended"
                time.sleep(1)
        talk()
    finally:
        process.terminate()
        process.wait()
