"""A Hugging Face hub on this machine: a folder behind the few addresses that pushing and loading a network ask."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

COMMIT = "0" * 40


class Hub:
    """Repositories as folders. Each has one revision.

    Attributes:
        folder: Where ``user/name`` is a folder.
        refusal: The status and the error code of every answer, if there is one.
        tokens: What each request authorised itself with.
        created: What was asked for when a repository was made.
    """

    def __init__(self, folder):
        self.folder = folder
        self.refusal = None
        self.tokens = []
        self.created = []


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, content=None, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps({} if content is None else content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self):
        """Read the request; answer it with a refusal if there is one."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.tokens.append(self.headers.get("Authorization"))
        self.place = self.path.partition("?")[0].strip("/").split("/")
        if self.hub.refusal is not None:
            status, code = self.hub.refusal
            self._answer({"error": "no"}, status, **({} if code is None else {"X_Error_Code": code}))
            return False
        return True

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if not self._begin():
            return
        api = self.place[:2] == ["api", "models"]
        user, name = self.place[2:4] if api else self.place[:2]
        folder = self.hub.folder / user / name
        if not folder.is_dir():
            self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif api and self.place[4] == "tree":
            self._answer(
                [
                    {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _digest(path)}
                    for path in folder.iterdir()
                ]
            )
        elif api:
            siblings = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
            self._answer({"id": f"{user}/{name}", "modelId": f"{user}/{name}", "sha": COMMIT, "siblings": siblings})
        elif (file := folder / self.place[-1]).is_file():
            self._answer(file.read_bytes(), ETag=f'"{_digest(file)}"', X_Repo_Commit=COMMIT)
        else:
            self._answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")

    def do_POST(self):
        if not self._begin():
            return
        url = f"http://{self.headers['Host']}"
        if self.place == ["api", "repos", "create"]:
            asked = json.loads(self.body)
            self.hub.created.append(asked)
            user = asked.get("organization") or "user"
            (self.hub.folder / user / asked["name"]).mkdir(parents=True, exist_ok=True)
            self._answer({"url": f"{url}/{user}/{asked['name']}"})
        elif self.place[-2] == "preupload":
            files = json.loads(self.body)["files"]
            self._answer(
                {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]}
            )
        elif self.place[-2] == "commit":
            folder = self.hub.folder.joinpath(*self.place[2:4])
            for line in self.body.splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    (folder / part["value"]["path"]).write_bytes(base64.b64decode(part["value"]["content"]))
            self._answer({"commitUrl": f"{url}/{'/'.join(self.place[2:4])}/commit/{COMMIT}", "commitOid": COMMIT})
        else:  # of the card's header
            self._answer({"errors": [], "warnings": []})


def _digest(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serve(folder):
    """Be the hub that the hub's own library finds, with a cache of its own, while the block runs."""
    hub = Hub(folder / "hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    constants = huggingface_hub.constants
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", address)
            patch.setattr(
                constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
            )
            patch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
            patch.setenv("HF_TOKEN", "hf_of_the_tests")
            yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
