"""A web server on this machine that can misbehave in the ways that downloads must survive."""

import hashlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, how, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Content by path."""
    ranges: bool = True
    """Whether Range is honoured."""
    validators: bool = True
    """Whether ETag is sent."""
    trouble: list[Callable[["Handler"], bool]] = field(default_factory=list)
    """Taken one for each request, in turn; one that returns True has answered."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of every request."""
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """Answers GET from a `Site`."""

    site: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.site.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.site.trouble and self.site.trouble.pop(0)(self):
            return
        content = self.site.files.get(self.route)
        if content is None:
            self.answer(404, b"not here")
        else:
            self.send(content)

    def send(self, content: bytes) -> None:
        """Send a file, or what is missing of it."""
        start = self.start_of(content)
        if start is None:
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        elif start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], {"Content-Range": span, **self.tag(content)})
        else:
            self.answer(200, content, self.tag(content))

    @property
    def route(self) -> str:
        """The path that was asked for, without its query."""
        return self.path.partition("?")[0]

    def start_of(self, content: bytes) -> int | None:
        """First byte that is wanted, by Range and If-Range; None if it lies beyond the end."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not match or not self.site.ranges:
            return 0
        if self.headers.get("If-Range", "") != self.tag(content).get("ETag", ""):
            return 0
        return int(match[1]) if int(match[1]) < len(content) else None

    def tag(self, content: bytes) -> dict[str, str]:
        return {"ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'} if self.site.validators else {}

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, length: int = -1) -> None:
        """Send an answer; `length` announces another length than that of the body, and ends the connection."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length < 0 else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or length >= 0

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


def cut(share: float) -> Callable[[Handler], bool]:
    """Send the answer's beginning only, and end the connection."""

    def act(handler: Handler) -> bool:
        content = handler.site.files[handler.path]
        start = handler.start_of(content) or 0
        rest = content[start:]
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        body = rest[: int(len(rest) * share)]
        handler.answer(206 if start else 200, body, {**handler.tag(content), **span}, length=len(rest))
        return True

    return act


def status(code: int, headers: dict[str, str] | None = None) -> Callable[[Handler], bool]:
    """Answer with a status alone."""

    def act(handler: Handler) -> bool:
        handler.answer(code, b"", headers)
        return True

    return act


def then(change: Callable[[Site], None]) -> Callable[[Handler], bool]:
    """Change the site, then answer as usual."""

    def act(handler: Handler) -> bool:
        change(handler.site)
        return False

    return act


@contextmanager
def serve(site: Site, handler: type[Handler] = Handler, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve a site on a free port until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("SiteHandler", (handler,), {"site": site}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    site.url = f"http{'s' if tls else ''}://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
