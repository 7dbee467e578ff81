"""A web server of files for tests: byte ranges, a record of what was asked for, and faults on demand."""

import http.server
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileServer(http.server.ThreadingHTTPServer):
    """Serves the files below `root`.

    Attributes:
        asked: How often each file was asked for.
        faults: For each file (or "*" for any) what goes wrong with its next requests: a status such as 503, `cut` (the
            connection ends in the middle), `flip` (a byte is wrong); the last entry stays if it is `forever`.
        retry_after: How long to wait after a status, as the server asks for it; empty if it does not.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.asked: Counter[str] = Counter()
        self.retry_after = ""
        self.faults: dict[str, list[int | str]] = defaultdict(list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, name: str) -> int | str | None:
        """What is to go wrong now."""
        for key in (name, "*"):
            planned = self.faults.get(key, [])
            if planned:
                return planned[0] if planned[1:] == ["forever"] else planned.pop(0)
        return None

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.asked[name] += 1
        fault = self.server.fault(name)
        path = self.server.root / self.path.lstrip("/")
        if isinstance(fault, int) or not path.is_file():
            self.send_response(fault if isinstance(fault, int) else 404)
            if self.server.retry_after:
                self.send_header("Retry-After", self.server.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        if fault == "flip":
            data = data[:50] + bytes([data[50] ^ 1]) + data[51:]
        first, last = 0, len(data) - 1
        if (wanted := self.headers.get("Range")) is not None:
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            first, last = int(low), min(int(high or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
        part = data[first : last + 1]
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if fault == "cut" else part)
        self.close_connection = fault == "cut"

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving(root: Path) -> Iterator[FileServer]:
    """A server of the files below `root`, for as long as the block runs."""
    with FileServer(root) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
