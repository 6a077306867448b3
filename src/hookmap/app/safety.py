"""Who may ask, how much, and what is told to the browser: the server is for one person, not for the pages they visit.

A page from elsewhere can make a browser send requests to this machine. It is kept out by the names in ``Host`` (its own
name may be bound to this address: DNS rebinding), by ``Origin`` and ``Sec-Fetch-Site``, and it can't read or frame what
comes back. From other machines a token is needed besides.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import secrets
import socket
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookmap.app.problems import Refused, response_of
from hookmap.pages import APP_POLICY

PICTURE_BYTES = 64 * 2**20
"""The largest picture that is taken, as a file."""
PICTURE_PIXELS = 100_000_000
"""The largest picture that is taken, decoded."""
QUESTION_BYTES = 2**20
"""The longest question that is read."""
_EXACT = 2**53
_HEADERS = {
    "content-security-policy": APP_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_OTHER_PROGRAMS = ("EPS", "WMF", "BUFR", "GRIB", "HDF5")
"""Formats that Pillow hands to other programs."""


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        host: that the server listens at.
        token: that has to be shown; None: whoever is at this machine may ask.
    """

    host: str = "127.0.0.1"
    token: str | None = None

    @classmethod
    def at(cls, host: str) -> Access:
        """At a host: with a token, unless it is this machine alone."""
        return cls(host, None if _is_loopback(host) else secrets.token_urlsafe(32))

    @property
    def cookie(self) -> str:
        """What the token's cookie is called: servers at other ports have their own."""
        return f"hookmap_{hashlib.sha256((self.token or '').encode()).hexdigest()[:8]}"

    def serves(self, name: str) -> bool:
        """Whether the server is called so: by its address, which no page can rebind, or by a name of this machine."""
        if self.token is None:
            return _is_loopback(name)
        try:
            ip_address(name)
        except ValueError:
            return name in {"localhost", self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return True

    def knows(self, shown: str) -> bool:
        """Whether this is the token."""
        return self.token is None or secrets.compare_digest(shown.encode(), self.token.encode())


class Guard:
    """Lets through what may be asked, and sends whatever goes wrong as a Problem.

    Args:
        app: behind it.
        access: who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cookie: str | None = None
        started = False

        async def send_safely(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-store")
                if cookie is not None:
                    headers.append("set-cookie", cookie)
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check_names(headers, scope["path"])
            cookie = self._check_token(headers, scope["query_string"])
            limit = PICTURE_BYTES if scope["path"] == "/api/pictures" else QUESTION_BYTES
            await self._app(scope, _bounded(receive, headers, limit), send_safely)
        except Exception as error:
            if started:
                raise
            await response_of(error)(scope, receive, send_safely)

    def _check_names(self, headers: Headers, path: str) -> None:
        host = headers.get("host", "")
        if not self._access.serves(_name_in(host)):
            raise Refused("forbidden", f"this server isn't called {_name_in(host)!r}; open the address that it printed")
        origin = headers.get("origin")
        elsewhere = origin is not None and origin.split("://")[-1] != host
        if path.startswith("/api/") and (
            elsewhere or headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        ):
            raise Refused("forbidden", "this comes from another page; only the page of this server may ask it")

    def _check_token(self, headers: Headers, query: bytes) -> str | None:
        """The cookie to set, if the token came in the address."""
        if self._access.token is None:
            return None
        name = self._access.cookie
        try:
            held = SimpleCookie(headers.get("cookie", "")).get(name)
        except CookieError:
            held = None
        if held is not None and self._access.knows(held.value):
            return None
        if not self._access.knows(parse_qs(query.decode("latin-1")).get("token", [""])[0]):
            raise Refused("token", "this server asks for a token; open the link that it printed where it was started")
        return f"{name}={self._access.token}; HttpOnly; SameSite=Strict; Path=/"


def check_pixels(data: bytes) -> None:
    """Look at how large a picture says it is, before it is decoded.

    Raises:
        Refused: if that is too large, or if another program would have to decode it.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels, form = image.width * image.height, image.format
    except Image.DecompressionBombError:
        pixels, form = PICTURE_PIXELS + 1, None
    except Exception:  # whatever damaged bytes make Pillow run into: whoever decodes it says so
        return
    if pixels > PICTURE_PIXELS:
        raise Refused("large", f"the picture has more than {PICTURE_PIXELS / 1e6:.0f} million pixels; shrink it")
    if form in _OTHER_PROGRAMS:
        raise Refused("image", f"pictures of the format {form} aren't taken here; save it as a PNG, JPEG, WebP, ...")


class StrictRequest(Request):
    """A request whose JSON holds no numbers that JSON doesn't have, or that aren't kept exactly."""

    async def json(self) -> Any:
        """Its body."""
        try:
            return json.loads(await self.body(), parse_constant=_finite, parse_float=_finite, parse_int=_whole)
        except RecursionError:
            raise Refused("question", "the question is nested too deeply") from None
        except ValueError as error:
            raise Refused("question", f"the question isn't JSON that can be read ({error})") from None


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no number")
    return number


def _whole(text: str) -> int:
    if len(text) > 17 or abs(number := int(text)) > _EXACT:
        raise ValueError(f"{text[:20]} is too large")
    return number


def _bounded(receive: Receive, headers: Headers, limit: int) -> Receive:
    """A request's body as it comes, up to a limit."""
    too_large = Refused("large", f"what was sent is larger than {limit // 2**20} MiB")
    said = headers.get("content-length", "")
    left = limit

    async def bounded() -> Message:
        nonlocal left
        if said.isdecimal() and int(said[:20]) > limit:
            raise too_large
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large
        return message

    return bounded


def _name_in(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"
