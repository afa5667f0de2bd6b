"""The one place where what went wrong becomes a message and an exit code. No traceback ever reaches a user."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.secret import forms, hide
from ..core.text import visible
from ..environment import keys, passwords
from ..exits import EXIT_BUG, EXIT_BUSY, EXIT_FAILED, EXIT_SIGINT, EXIT_USAGE, UsageError
from ..ledger.errors import LedgerBusy, LedgerError

if TYPE_CHECKING:
    from ..manifest import Finding


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from .main import cli

    _never_fail_to_print()
    try:
        code = cli.main(args=arguments, prog_name="batchrunner", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_SIGINT
    except BrokenPipeError:
        drop_stdout()
        return EXIT_FAILED
    except LedgerBusy as busy:
        return _say(str(busy), EXIT_BUSY)
    except (UsageError, LedgerError) as error:
        return _say(str(error), EXIT_USAGE, getattr(error, "lines", ()))
    except Exception as error:  # noqa: BLE001  the last line of defence
        return _known(error) or _bug(error)


def _never_fail_to_print() -> None:
    """Where the locale has no word for a character, show its escape instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _say(message: str, code: int, lines: Sequence[str] = ()) -> int:
    click.echo("\n  ".join([f"error: {visible(message)}", *map(visible, lines)]), err=True)
    return code


def _known(error: Exception) -> int:
    """Errors of rooms that are imported only where they are used; 0 for none of them."""
    import sqlite3

    from ..ledger.naming import Unknown
    from ..manifest import ManifestError

    if isinstance(error, ManifestError):
        print_findings(error.findings, as_json=_wants_json())
        return EXIT_USAGE
    if isinstance(error, Unknown):
        return _say(str(error), EXIT_USAGE)
    if isinstance(error, sqlite3.OperationalError) and _is_gone(error):
        return _say(f"the ledger's server went away ({error}); try again", EXIT_USAGE)
    if isinstance(error, sqlite3.DatabaseError):  # a reader does not check the whole file before it reads
        return _say(
            f"the ledger can't be read ({error}); keep it, and restore a copy or choose another --db", EXIT_USAGE
        )
    return 0


def _is_gone(error: Exception) -> bool:
    from ..ledger.writer import Gone

    return isinstance(error, Gone)


def _wants_json() -> bool:
    return "--json" in sys.argv


def finding_dict(finding: Finding) -> dict[str, Any]:
    """A finding as `--json` prints it."""
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "path": finding.path,
        "message": finding.message,
        "severity": "warning" if finding.warning else "error",
    }


def print_findings(findings: tuple[Finding, ...], *, as_json: bool) -> None:
    """Errors and warnings, sorted by position: a line each on stderr, or a JSON array on stdout."""
    if as_json:
        from .tables import print_json

        print_json([finding_dict(f) for f in findings])
        return
    for finding in findings:
        click.echo(visible(str(finding)), err=True)
    errors = sum(not f.warning for f in findings)
    if errors:
        click.echo(f"{errors} error{'s' if errors != 1 else ''}; nothing was submitted", err=True)


def _bug(error: Exception) -> int:
    """A bug: the traceback goes to a file, its path to the user."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    for key in (*keys(), *passwords()):
        text = hide(text, forms(key) or [key])
    try:
        descriptor, path = tempfile.mkstemp(prefix="batchrunner-", suffix=".log", dir=_log_folder())
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as failed:
        path = f"nowhere ({failed.strerror})"
    click.echo(
        f"error: this is a bug in batchrunner ({type(error).__name__}); its log is {path}\n"
        "Nothing that was sent is lost: run the same command again to continue.",
        err=True,
    )
    return EXIT_BUG


def _log_folder() -> str | None:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = Path(state) / "batchrunner"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder)


def drop_stdout() -> None:
    """The reader of our output has gone: leave without a word (docs.python.org, signal, note on SIGPIPE)."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
