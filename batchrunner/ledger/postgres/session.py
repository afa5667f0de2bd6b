"""A psycopg connection whose rows and values are the ledger's, as `sqlite3` gives them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.adapt import Loader
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper


class _Text(StrDumper):
    """Text is always text to PostgreSQL, and it knows no NUL, which a hostile answer can have: its picture is kept."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\u2400") if "\0" in obj else obj)


class _Flag(Int8Dumper):
    """The ledger's booleans are 0 and 1."""

    def dump(self, obj: Any) -> bytes:
        return b"1" if obj else b"0"


class _Whole(Loader):
    """A sum of whole numbers is `numeric` to PostgreSQL."""

    def load(self, data: Any) -> int | float:
        text = bytes(data)
        return int(text) if b"." not in text else float(text)


class _Json(Loader):
    """A value of SQLite's type ANY."""

    def load(self, data: Any) -> Any:
        import json

        return json.loads(bytes(data))


class Named:
    """A row by name and by position, as `sqlite3.Row` is."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: dict[str, int], values: tuple[Any, ...]) -> None:
        self._names = names
        self._values = values

    def keys(self) -> list[str]:
        return list(self._names)

    def __getitem__(self, key: Any, /) -> Any:
        return self._values[self._names[key] if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, Named) else other)

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"Named({dict(zip(self._names, self._values, strict=False))})"


def named(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Named]:
    """psycopg's row factory. Of two columns with one name the first is meant, as in SQLite."""
    names: dict[str, int] = {}
    result = cursor.pgresult  # `description` would make an object of each column
    if result is not None:
        for number in range(result.nfields):
            names.setdefault((result.fname(number) or b"").decode(), number)
    return lambda values: Named(names, tuple(values))


def connect(url: str, **settings: Any) -> psycopg.Connection[Named]:
    """A psycopg connection whose values are the ledger's. Raises psycopg.Error."""
    defaults = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20000}
    given = psycopg.conninfo.conninfo_to_dict(url)
    more = {name: value for name, value in {"connect_timeout": 10, **defaults}.items() if name not in given}
    connection: psycopg.Connection[Named] = psycopg.Connection.connect(
        url,
        autocommit=True,
        cursor_factory=psycopg.RawCursor,
        row_factory=named,
        client_encoding="UTF8",
        **more,  # type: ignore[arg-type]
        **settings,
    )
    connection.prepared_max = 200
    adapters = connection.adapters
    adapters.register_dumper(str, _Text)
    adapters.register_dumper(int, Int8Dumper)
    adapters.register_dumper(bool, _Flag)
    adapters.register_loader("numeric", _Whole)
    adapters.register_loader("jsonb", _Json)
    return connection


def sever(connection: psycopg.BaseConnection[Any]) -> None:
    """Cut a connection, whoever waits for its answer, in whatever thread: it hears that the connection is lost."""
    with suppress(psycopg.Error, OSError):
        number = connection.pgconn.socket
        with socket.socket(fileno=os.dup(number)) as its:
            if connection.pgconn.socket == number:  # else its own thread has closed it, and the number is another's
                its.shutdown(socket.SHUT_RDWR)
