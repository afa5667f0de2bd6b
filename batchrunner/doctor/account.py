"""The accounts: key, server, balance and clock of each provider."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import plugins
from ..core.events import Refused
from ..core.pricing import usd_text
from ..engine.clock import wall
from ..environment import THIS_MACHINE, access, connect, has_key, kind_of
from ..exits import UsageError
from ..ledger import queries
from ..ledger.address import Address
from ..ledger.connection import open_reader
from ..ledger.errors import LedgerUnusable
from ..providers.base import Balance, Unavailable
from .check import Check, Level

if TYPE_CHECKING:
    from ..providers.base import Access, Provider, ProviderKind

SKEW = 60.0
"""Seconds that the clock may be off before it is worth a word."""

ASK_SECONDS = 15.0
"""How long to wait for the server's time."""


def checks(db: Address, *, offline: bool) -> Iterator[Check]:
    """Of each provider: key, server, balance and clock. Without any key, that a paid run needs one."""
    with_key = False
    for name in plugins.names():
        try:
            kind = kind_of(name)
        except UsageError as error:
            yield Check(f"provider {name}", Level.WARN, str(error), "mend or remove its package")
            continue
        if has_key(kind):
            with_key = True
            yield from _account(db, kind, offline=offline)
        elif os.environ.get(kind.base_variable) is not None:
            yield from _base_alone(kind)
    if not with_key:
        fix = "export REAPI_API_KEY=... before a paid run; --simulate needs none"
        yield Check("key", Level.WARN, "no API key is set", fix)


def _account(db: Address, kind: ProviderKind, *, offline: bool) -> Iterator[Check]:
    name = next(variable for variable in kind.keys if os.environ.get(variable))
    try:
        how = access(kind)
        provider = connect(kind, how, wall)
    except UsageError as error:
        yield Check("key and server", Level.FAIL, str(error), f"set {name} and {kind.base_variable} right")
        return
    yield Check("key", Level.OK, f"set in {name}")
    yield _server(db, kind, provider)
    if not offline and kind.capabilities.balance:
        yield from asyncio.run(_ask(kind, how))


def _base_alone(kind: ProviderKind) -> Iterator[Check]:
    from ..providers.base import Access

    try:
        origin = connect(kind, Access(os.environ[kind.base_variable], "no-key-is-needed-here")).origin
    except UsageError as error:
        yield Check("server", Level.FAIL, str(error), f"set {kind.base_variable} right, or unset it")
    else:
        yield Check("server", Level.OK, origin)


def _server(db: Address, kind: ProviderKind, provider: Provider) -> Check:
    """Whether the server is the one that the ledger belongs to."""
    origin = provider.origin
    mine = THIS_MACHINE if provider.loopback else origin
    with suppress(LedgerUnusable):
        connection = open_reader(db)
        if connection is not None:
            try:
                bound = queries.bound_origin(connection, kind.name)
            finally:
                connection.close()
            if bound is not None and bound != mine:
                fix = f"set {kind.base_variable} back, or use another --db"
                return Check("server", Level.FAIL, f"{origin}, but the ledger belongs to {bound}", fix)
    return Check("server", Level.OK, origin)


async def _ask(kind: ProviderKind, how: Access) -> list[Check]:
    provider = connect(kind, how, wall)
    try:
        answer = await provider.balance()
    finally:
        await provider.aclose()
    found = [_balance(answer, kind)]
    if not found[0].refused or isinstance(answer, Refused):
        found.append(clock_check(await _server_date(provider.origin, how), wall()))
    return found


def _balance(answer: object, kind: ProviderKind) -> Check:
    if isinstance(answer, Balance):
        text = f"{answer.credits:,} credits (${usd_text(answer.credits)})"
        if answer.credits <= 0:
            return Check("balance", Level.WARN, text, "top the account up before a run")
        return Check("balance", Level.OK, text)
    problem = getattr(answer, "problem", None)
    said = problem.message if problem is not None else "no answer"
    if isinstance(answer, Refused):
        fix = "make a new key in the provider's settings, and export it"
        return Check("balance", Level.FAIL, f"the key was refused: {said}", fix, refused=True)
    if isinstance(answer, Unavailable):
        fix = f"check the network, a proxy or firewall, and {kind.base_variable}"
        return Check("balance", Level.FAIL, f"can't be asked: {said}", fix, refused=True)
    return Check("balance", Level.WARN, f"not now: {said}", "try again in a minute")


async def _server_date(origin: str, how: Access) -> str | None:
    """The Date header of an answer that needs no key; None where there is none."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(
                origin,
                allow_redirects=False,
                headers={"User-Agent": how.user_agent},
            ) as response,
        ):
            return response.headers.get("Date")
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


def clock_check(date: str | None, now: float) -> Check:
    """This machine's clock against a Date header.

    Args:
        date: the header; None where there was none.
        now: unix seconds.
    """
    from email.utils import parsedate_to_datetime

    parse: Callable[[str], Any] = parsedate_to_datetime
    try:
        there = None if date is None else parse(date).timestamp()
    except ValueError:
        there = None
    if there is None:
        return Check("clock", Level.OK, "not compared: the server says no time")
    off = now - there
    if abs(off) > SKEW:
        text = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the server's"
        return Check("clock", Level.WARN, text, "turn on NTP (timedatectl set-ntp true)")
    return Check("clock", Level.OK, f"within {SKEW:.0f} s of the server's")
