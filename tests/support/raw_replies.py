"""A server that answers with the very bytes that it is told."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["RawReplies"]

USUAL = {"host", "user-agent", "accept", "accept-encoding", "content-length", "content-type", "connection"}


class RawReplies:
    """Answers each request with `status`, `headers` and `body`; one piece each where it is a list.

    Attributes:
        requests: The bodies it got.
        paths: The paths that were asked for.
        keys: The `Authorization` of each, and the names of the fields beside the usual ones.
    """

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | Sequence[bytes] = b"{}"
        self.requests: list[bytes] = []
        self.paths: list[str] = []
        self.keys: list[Any] = []
        replies = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes. The second would wait until the first is acknowledged, 40 ms.
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with suppress(
                    ConnectionError
                ):  # a reader that has what it wants leaves before the last chunk
                    super().handle()

            def do_POST(self) -> None:
                size = int(self.headers.get("content-length", 0))
                replies.requests.append(self.rfile.read(size))
                replies.paths.append(self.path)
                names = {name.lower() for name in self.headers} - USUAL
                replies.keys.append((self.headers.get("authorization"), sorted(names)))
                replies.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # So often it looks whether it is to end; by default every half second, which tests would wait for.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def api_base(self) -> str:
        """The address for an LM."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        if self.status >= 400:  # DSPy's client may take an unread body for the next answer's head
            handler.send_header("Connection", "close")
        if isinstance(self.body, bytes):
            handler.send_header("Content-Length", str(len(self.body)))
            handler.end_headers()
            handler.wfile.write(self.body)
            return
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in self.body:
            if piece:
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
