"""Open a page in headless Chromium and see what it shows and what it asks the network for."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_SECONDS = 120
# What the browser itself asks for at every start, whatever the page.
_OWN = ("update.googleapis.com", "clients2.google.com", "accounts.google.com")


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.fail("chromium is not installed; 'make setup-test' installs it (apt install chromium)")


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a proxy that answers nothing, and the list of what it was asked for."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            host = self.path.removeprefix("http://").partition("/")[0].partition(":")[0]
            if host not in _OWN:
                asked.append(self.path)
            self.send_error(404)

        do_GET = do_CONNECT = do_POST = do_HEAD = refuse  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def open_page(page: Path, *options: str) -> tuple[str, list[str]]:
    """Return what Chromium prints, and what went to the network while it showed the page."""
    with proxy() as (address, asked):
        result = subprocess.run(
            [
                browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--no-first-run", f"--user-data-dir={page.parent / 'profile'}",
                f"--proxy-server={address}", "--proxy-bypass-list=<-loopback>", *options,
                page.as_uri(),
            ],
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout, list(asked)
