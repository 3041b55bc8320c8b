"""Servers that receive what Sentry and OpenTelemetry send, and count it."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Collector:
    """`events`: the JSON events of Sentry. `posts`: the bodies that came to each other path."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.posts: dict[str, list[bytes]] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path.endswith("/envelope/"):
                    collector.events += _events_of(body)
                else:
                    collector.posts.setdefault(self.path, []).append(body)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def messages(self) -> list[str]:
        """Of each event: its message, or the value of its exception, in order."""
        return sorted(_message_of(event) for event in self.events)

    @contextmanager
    def serving(self) -> Iterator[Collector]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _events_of(envelope: bytes) -> list[dict[str, object]]:
    """The items of an envelope that are events: each is a line with its header and a line with its body."""
    lines = envelope.split(b"\n")[1:]
    headers_and_bodies = zip(lines[::2], lines[1::2], strict=False)
    return [
        json.loads(body) for header, body in headers_and_bodies if json.loads(header).get("type") == "event"
    ]


def _message_of(event: dict[str, object]) -> str:
    exception = event.get("exception")
    if isinstance(exception, dict):
        return str(exception["values"][-1]["value"])
    return str(event.get("message") or event.get("logentry", {}))
