"""A plain file server for a built site, with files of a test's own laid over it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: object, over: Path, **options: object) -> None:
        self.over = over
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """A file of the test, if there is one of that name."""
        mine = self.over / unquote(urlsplit(path).path).lstrip("/")
        return str(mine) if mine.is_file() else super().translate_path(path)

    def guess_type(self, path: object) -> str:
        """Modules and WebAssembly, which some systems do not know, and the rest as ever."""
        known = {".mjs": "text/javascript", ".wasm": "application/wasm"}
        return known.get(Path(str(path)).suffix) or super().guess_type(str(path))

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path, over: Path) -> Iterator[str]:
    """Serve a folder at an address of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder), over=over))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
