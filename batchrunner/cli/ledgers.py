"""Reading the ledger for a verb: beside a run or without one, and without ever making a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.text import visible
from ..exits import DEFAULT_DB, UsageError
from ..ledger.address import Address, Server, is_url, parse
from ..ledger.connection import open_reader
from ..ledger.sql import Connection
from .options import ledger_path

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

OFFERED = 200
"""Most names that a shell completion offers."""


@contextmanager
def reading(path: Address) -> Iterator[Connection | None]:
    """A read-only connection, None where there is no ledger.

    Raises:
        LedgerUnusable: see `open_reader`.
    """
    connection = open_reader(path)
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


@contextmanager
def reading_known(path: Address) -> Iterator[Connection]:
    """A read-only connection to a ledger that has to be there.

    Raises:
        UsageError: it isn't.
    """
    with reading(path) as connection:
        if connection is None:
            raise UsageError(no_ledger(path))
        yield connection


def no_ledger(path: Address) -> str:
    """What to say where there is no ledger, with the hint that most often helps."""
    if isinstance(path, Server):
        return f"no ledger at {path} yet; `batchrunner run MANIFEST` makes it, --db names another"
    beside = path.with_name(path.stem + ".sim" + (path.suffix or ".db"))
    if beside.is_file():
        import shlex

        return f"no ledger at {path}; for simulated work use --db {shlex.quote(_short(beside))}"
    return f"no ledger at {path} yet; `batchrunner run MANIFEST` makes it, --db names another"


def _short(path: Path) -> str:
    return path.name if path.parent == Path.cwd() else str(path)


def db_words(path: Address) -> str:
    """The `--db` that a suggested command needs in order to mean this ledger; empty for the default one."""
    if path == ledger_path(Path(DEFAULT_DB)):
        return ""
    import shlex

    return f" --db {visible(shlex.quote(_short(path) if isinstance(path, Path) else str(path)))}"


# --- Completion in the shell -----------------------------------------------------------------------------

_BATCHES = "SELECT name FROM batch WHERE glob(?, name) ORDER BY id DESC LIMIT ?"
_JOBS = "SELECT DISTINCT key FROM job WHERE glob(?, key) ORDER BY key LIMIT ?"


def complete_batches(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Batches of the ledger that begin with `incomplete`."""
    return _complete(ctx, param, incomplete, (_BATCHES,))


def complete_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys of the ledger that begin with `incomplete`."""
    return _complete(ctx, param, incomplete, (_JOBS,))


def complete_both(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Batches and keys of the ledger that begin with `incomplete`."""
    return _complete(ctx, param, incomplete, (_BATCHES, _JOBS))


def _complete(
    ctx: click.Context, param: click.Parameter, incomplete: str, questions: tuple[str, ...]
) -> list[CompletionItem]:
    """Never fails: a shell that prints a traceback at a press of a key is worse than one that offers nothing."""
    from click.shell_completion import CompletionItem

    del param
    pattern = incomplete.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]") + "*"
    try:
        with reading(_completing_path(ctx)) as connection:
            if connection is None:
                return []
            return [
                CompletionItem(row[0])
                for question in questions
                for row in connection.execute(question, (pattern, OFFERED))
            ]
    except Exception:  # noqa: BLE001
        return []


def _completing_path(ctx: click.Context) -> Address:
    import os

    given = ctx.params.get("db") or os.environ.get("BATCHRUNNER_DB")
    if isinstance(given, str) and is_url(given):
        given = parse(given)
    return ledger_path(Path(given) if isinstance(given, str) else given)
