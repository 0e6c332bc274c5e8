"""A stand-in for the Hugging Face hub on localhost: as much of its interface as is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "c0ffee" + "0" * 34
NAME = "someone/tiny"


@dataclass
class Hub:
    """What the stand-in serves. `refuse`: (status, X-Error-Code) for every request."""

    files: dict[str, bytes]
    refuse: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(path)
            if hub.refuse:
                self.send(b"{}", body, status=hub.refuse[0], code=hub.refuse[1])
            elif path.startswith(f"/api/models/{NAME}/tree/"):
                self.send(json.dumps([_entry(n, d) for n, d in hub.files.items()]).encode(), body)
            elif path.startswith(f"/api/models/{NAME}"):
                siblings = [{"rfilename": name} for name in hub.files]
                told = {"id": NAME, "modelId": NAME, "sha": COMMIT, "siblings": siblings}
                self.send(json.dumps(told).encode(), body)
            elif path.startswith(f"/{NAME}/resolve/"):
                name = path.split("/", 5)[5]
                if name in hub.files:
                    self.send(hub.files[name], body)
                else:
                    self.send(b"", body, status=404, code="EntryNotFound")
            else:
                self.send(b"", body, status=404, code="RepoNotFound")

        def send(self, data: bytes, body: bool, *, status: int = 200, code: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    return Handler


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {
        "type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest(),  # noqa: S324 - git's own
    }  # fmt: skip
