"""A server for tests that look at its page in a browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hookmap.app.running import address, listening, run
from hookmap.app.server import App


@contextmanager
def served(app: App) -> Iterator[str]:
    """Where it answers, until the process ends."""
    with listening("127.0.0.1", 0) as listener:
        threading.Thread(target=run, args=(app, listener), daemon=True).start()
        yield address(listener, "127.0.0.1", None)
