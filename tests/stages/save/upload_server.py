"""A stand-in for the Hugging Face hub on localhost that takes uploads: LFS files, and a commit."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

REPO = "someone/tiny-w4a16"


@dataclass
class Hub:
    """What was sent: `files` of the repository by name. `refuse`: a status for every commit."""

    token: str
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    made: dict[str, Any] | None = None
    commits: list[str] = field(default_factory=list)
    refuse: int = 0
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{REPO}/tree/"):
                self.send(
                    [
                        {"type": "file", "path": name, "size": len(data), "oid": _sha1(data)}
                        for name, data in hub.files.items()
                    ]
                )
            elif path.startswith(f"/api/models/{REPO}"):
                siblings = [{"rfilename": name} for name in hub.files]
                self.send({"id": REPO, "modelId": REPO, "sha": "0" * 40, "siblings": siblings})
            else:
                self.send({}, status=404)

        def do_PUT(self) -> None:
            hub.blobs[self.path.rpartition("/")[2]] = self.body()
            self.send({})

        def do_POST(self) -> None:
            path, body = self.path.split("?")[0], self.body()
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.send({"error": "who is this?"}, status=401)
            elif path == "/api/repos/create":
                hub.made = json.loads(body)
                self.send({"url": f"{hub.url}/{REPO}"})
            elif path == "/api/validate-yaml":
                self.send({"errors": [], "warnings": []})
            elif path == f"/api/models/{REPO}/preupload/main":
                self.send({"files": [_mode(file) for file in json.loads(body)["files"]]})
            elif path == f"/{REPO}.git/info/lfs/objects/batch":
                objects = [self.place(each) for each in json.loads(body)["objects"]]
                self.send({"transfer": "basic", "objects": objects})
            elif path == f"/api/models/{REPO}/commit/main":
                self.commit(body)
            else:
                self.send({}, status=404)

        def place(self, each: dict[str, Any]) -> dict[str, Any]:
            href = f"{hub.url}/lfs/{each['oid']}"
            return {**each, "actions": {"upload": {"href": href, "header": {}}}}

        def commit(self, body: bytes) -> None:
            if hub.refuse:
                self.send({"error": "not today"}, status=hub.refuse)
                return
            for line in body.splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.blobs[value["oid"]]
                elif item["key"] == "deletedFile":
                    del hub.files[value["path"]]
            hub.commits.append(hashlib.sha1(body).hexdigest())  # noqa: S324 - git's own
            oid = hub.commits[-1]
            url = f"{hub.url}/{REPO}/commit/{oid}"
            self.send({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def send(self, content: Any, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    return Handler


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    kind = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": kind, "shouldIgnore": False}


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # noqa: S324 - git's own
