"""Where a ledger is: a file, or a schema of a PostgreSQL database. What is shown of an address never has a password."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SCHEMES = ("postgresql://", "postgres://")
SCHEMA = "batchrunner"
"""The schema that holds the ledger, where the address names none with `?schema=NAME`."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,49}")
_SECRET = ("password", "sslpassword")
_OURS = "schema"


@dataclass(frozen=True, slots=True, repr=False)
class Server:
    """A ledger in PostgreSQL.

    Attributes:
        url: what libpq connects to; may hold a password. `PG*` variables fill in what it leaves out.
        schema: the schema that the ledger has to itself.
    """

    url: str
    schema: str = SCHEMA

    def __str__(self) -> str:
        """The address without a password, as it may be shown, and given again where the password comes from the
        environment or from ~/.pgpass."""
        parts = urlsplit(self.url)
        user, at, hosts = parts.netloc.rpartition("@")
        asked = [(name, value) for name, value in _parameters(parts.query) if name not in _SECRET]
        if self.schema != SCHEMA:
            asked.append((_OURS, self.schema))
        query = "&".join(f"{name}={quote(value, safe='/:,')}" for name, value in asked)
        return f"postgresql://{user.partition(':')[0]}{at}{hosts}{parts.path}" + (f"?{query}" if query else "")

    __repr__ = __str__

    @property
    def simulated(self) -> Server:
        """Where simulated work keeps its ledger, beside this one."""
        return self if self.schema.endswith("_sim") else replace(self, schema=f"{self.schema}_sim")

    @property
    def secrets(self) -> list[str]:
        """Everything that gives the password away, wherever it comes from."""
        from ..core.secret import forms  # a reader of a file need not pay for it

        parts = urlsplit(self.url)
        user = parts.netloc.rpartition("@")[0]
        found = [unquote(user.partition(":")[2]), os.environ.get("PGPASSWORD", "")]
        found += [value for name, value in _parameters(parts.query) if name in _SECRET]
        return [form for secret in found if secret for form in forms(secret) or (secret, quote(secret, safe=""))]


Address = Path | Server
"""Where a ledger is."""


def is_url(text: str) -> bool:
    """Whether a `--db` is meant as the address of a server."""
    return "://" in text


def parse(text: str) -> Server:
    """The ledger that a URL names.

    Raises:
        ValueError: it names none; the message says why, and shows nothing of it.
    """
    if not text.startswith(SCHEMES):
        raise ValueError("a ledger is a file, or a database such as postgresql://host/name")
    parts = urlsplit(text)
    if any("@" in part for part in (parts.path, parts.query, parts.fragment)) or parts.fragment:
        raise ValueError(
            "the database's address can't be read: write / ? # @ and : of a password as %2F %3F %23 %40 and %3A, or "
            "leave it to PGPASSWORD or ~/.pgpass"
        )
    asked = _parameters(parts.query)
    schema = dict(asked).get(_OURS, SCHEMA)
    if not _NAME.fullmatch(schema):
        raise ValueError("schema= takes a name of small letters, digits and _, such as schema=nights")
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in asked if name != _OURS)
    url = f"postgresql://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")
    return Server(url, schema)


def _parameters(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
