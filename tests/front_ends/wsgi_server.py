"""Serve the registry's WSGI application on threads: `python -m tests.front_ends.wsgi_server PORT`.

The standard library's server, extended by what WSGI servers in production have: keep-alive connections, chunked bodies,
the path as it was sent (REQUEST_URI), and no body in the answer to HEAD.
"""

import io
import sys
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.headers import Headers
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

# Longer bodies are not read, and the connection is closed after the answer.
BODY_LIMIT = 1024 * 1024 + 1


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """A server with a thread for each connection."""

    daemon_threads = True


class Answer(ServerHandler):
    """An answer in HTTP/1.1."""

    http_version = "1.1"
    environ: dict[str, Any]
    headers: Headers
    request_handler: Any

    def cleanup_headers(self) -> None:
        """Close the connection after an answer without a length, and announce it."""
        super().cleanup_headers()
        if "Content-Length" not in self.headers:
            self.request_handler.close_connection = True
        if self.request_handler.close_connection:
            self.headers["Connection"] = "close"

    def write(self, data: bytes) -> None:
        super().write(b"" if self.environ["REQUEST_METHOD"] == "HEAD" else data)


class Connection(WSGIRequestHandler):
    """A connection, which serves one request after another."""

    close_connection: bool
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; the second would wait 40 ms for an ACK

    def handle(self) -> None:
        self.close_connection = False
        while not self.close_connection:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                return
            body = self.read_body()
            environ = self.get_environ()
            environ["REQUEST_URI"] = self.path
            environ["CONTENT_LENGTH"] = self.headers.get("Content-Length") or str(len(body))
            answer = Answer(io.BytesIO(body), cast(Any, self.wfile), sys.stderr, environ, multithread=True)
            answer.request_handler = self
            answer.run(cast(Any, self.server).get_app())

    def read_body(self) -> bytes:
        """Return the body; nothing, or the beginning, of one that is too long."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self.read_chunks()
        length = int(self.headers.get("Content-Length") or 0)
        if length <= BODY_LIMIT:
            return self.rfile.read(length)
        self.close_connection = True
        return b""

    def read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
            if len(body) >= BODY_LIMIT:
                self.close_connection = True
                return body
        self.rfile.readline()
        return body

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the standard library's name)
        """Write nothing: the registry has its own request log."""


def serve(application: WSGIApplication, port: int) -> None:
    with ThreadingServer(("127.0.0.1", port), Connection) as server:
        server.set_app(application)
        server.serve_forever()


if __name__ == "__main__":
    from registry_project.wsgi import application

    serve(application, int(sys.argv[1]))
