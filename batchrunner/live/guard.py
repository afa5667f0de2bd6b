"""Who may ask the live page for what: this machine only, pages of other sites never, and changes by token only."""

from __future__ import annotations

import hmac
from collections.abc import Set

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""On every answer."""

TOKEN = "X-Batchrunner-Token"  # noqa: S105  the header's name
"""A header of its own: another site's page can't send it without being asked first (CORS), and nobody says yes."""


def guard(hosts: Set[str]) -> Middleware:
    """A middleware that turns away everybody but pages of our own.

    Args:
        hosts: values of the Host header that mean this server.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Host", "").lower() not in hosts:  # a name that somebody has pointed here (rebinding)
            return web.Response(status=421, text="this server answers to its own address only\n", headers=HEADERS)
        if _foreign(request, hosts):
            return web.Response(status=403, text="not for pages of other sites\n", headers=HEADERS)
        try:
            return await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise

    return middleware


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer as it is sent; a handler's own value stays."""
    del request
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _foreign(request: web.Request, hosts: Set[str]) -> bool:
    """Whether a page of another origin asks (Fetch metadata, or Origin). A link to our page may stand anywhere."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}:
        return True
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site in {"same-origin", "none"}:
        return False
    return not (request.method == "GET" and request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate")


def check_token(request: web.Request, token: str | None) -> None:
    """
    Raises:
        HTTPForbidden: nothing may be changed here, or not by this one.
    """
    if token is None:
        raise web.HTTPForbidden(text="read-only; start it with `batchrunner serve --control`\n")
    given = request.headers.get(TOKEN, "")
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise web.HTTPForbidden(text="the token is missing or wrong; open the address that `serve` has printed\n")
