"""The server as a process: where it listens, and how it ends."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import uvicorn

from hookmap.app.jobs import Jobs
from hookmap.app.server import App
from hookmap.errors import HookmapError

PORT = 4665
"""The first that is tried; it spells HOOK on a telephone."""
_TRIES = 20


def listening(host: str, port: int | None) -> socket.socket:
    """A socket at a port, or at the first that is free.

    Raises:
        HookmapError: if it is taken, or there's no such host.
    """
    for number in range(PORT, PORT + _TRIES) if port is None else [port]:
        try:
            return socket.create_server((host, number), family=_family(host))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise HookmapError(f"can't listen at {host}, port {number} ({error.strerror or error})") from None
    if port is None:
        raise HookmapError(f"ports {PORT} to {PORT + _TRIES - 1} are all taken; name a free one: --port")
    raise HookmapError(f"port {port} is taken; leave out --port to take the next free one")


def address(listener: socket.socket, host: str, token: str | None) -> str:
    """The link that opens the page; at all addresses of this machine by its name."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    secret = "" if token is None else f"?token={token}"
    return f"http://{name}:{listener.getsockname()[1]}/{secret}"


def run(app: App, listener: socket.socket) -> None:
    """Answer until Ctrl-C."""
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, ws="none", lifespan="on")
    _Server(config, app.jobs).run([listener])


class _Server(uvicorn.Server):
    """Cancels all questions when it is to end: nobody is kept waiting, and no connection is left open."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs) -> None:
        super().__init__(config)
        self._jobs = jobs

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self._jobs.close()
        await super().shutdown(sockets)


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return socket.AF_INET
