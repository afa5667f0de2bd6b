"""`report`: a batch as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ..core.figures import counted
from ..core.job import State
from ..core.text import visible
from ..engine.clock import wall
from ..exits import EXIT_OK, UsageError
from ..ledger.address import Address
from .ledgers import complete_batches, reading_known
from .options import absolute, db_option, ledger_path, selection, selection_options, states_option
from .tables import note, on_terminal, say, warn

MAILABLE = 25_000_000
"""Bytes that most mail servers take."""

MANY = 200
"""Stills that are worth a bar."""


@click.command(
    epilog="""\b
Examples:
  batchrunner report nightly-beach
  batchrunner report nightly-beach --open
  batchrunner report nightly-beach --out ~/morning.html
  batchrunner report nightly-beach --tag hero --state succeeded --embed --out hero.html     one file to mail

\b
Written to report.html in the folder of the batch's outputs, unless --out names another file. The page finds the clips
beside itself, by relative paths: move the folder as a whole, or use --embed. It opens from a file, needs no network,
and can be made anew at any time, also while a run is alive; stills that it has are taken over. A file that is not a
report of this batch is never overwritten.
"""
)
@click.argument("batch", shell_complete=complete_batches)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write this file.")
@click.option("--embed", is_flag=True, help="Put the clips into the page: one file, to mail.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option("--no-stills", is_flag=True, help="Don't make still pictures of the clips.")
@states_option
@selection_options
@db_option
def report(
    batch: str,
    out: Path | None,
    embed: bool,
    show: bool,
    no_stills: bool,
    states: tuple[State, ...],
    only: tuple[str, ...],
    tags: tuple[str, ...],
    db: Address | None,
) -> int:
    """One self-contained HTML page: clips, costs, failures, the night.

    Summary and timeline, what needs a person's word with the commands for it, failures by cause, costs by shot, and a
    gallery of playable clips to filter, compare and judge.
    """
    from ..ledger.night_queries import morning
    from ..report import files
    from ..report.make import NoFolder, Order, TooLarge, make

    path, now = ledger_path(db), wall()
    named = path if isinstance(path, Path) else str(path)
    order = Order(
        named, None if out is None else absolute(out), _options(states, only, tags), embed, not no_stills, now
    )
    with reading_known(path) as connection:
        facts = morning(connection, batch, states, selection(only, tags), now)
    try:
        made = make(facts, order, _bar)
    except files.NotOurs as refused:
        raise UsageError(f"{refused}; name another file with --out") from None
    except NoFolder as refused:
        raise UsageError(str(refused)) from None
    except TooLarge as refused:
        raise UsageError(f"{refused}; choose fewer with --tag, --only or --state, or leave out --embed") from None
    except OSError as error:
        raise UsageError(f"can't write {error.filename or 'the page'}: {error.strerror}") from None
    say(f"{counted(len(facts.entries), 'job')} in {visible(str(made.path))}")
    if made.problems:
        warn(f"{counted(made.problems, 'file')} missing or changed since stored; the page says which")
    for lost in made.unread:
        warn(f"{visible(str(lost))} could not be read")
    if embed and made.size > MAILABLE:
        note(f"It has {made.size / 1e6:.0f} MB; many mail servers take no more than {MAILABLE // 1_000_000}")
    if show:
        _open(made.path)
    return EXIT_OK


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.as_uri()):
        warn(f"no browser here can be opened; the page is {visible(page.as_uri())}")


def _options(states: tuple[State, ...], only: tuple[str, ...], tags: tuple[str, ...]) -> tuple[str, ...]:
    """The options that chose the jobs, as they were given."""
    given = [("--state", s.value) for s in states] + [("--only", g) for g in only] + [("--tag", t) for t in tags]
    return tuple(word for pair in given for word in pair)


def _bar(stills: Iterator[str | None], count: int) -> Iterator[str | None]:
    """A bar where somebody looks, and has to wait."""
    if not on_terminal() or count < MANY:
        return stills
    from rich.progress import track

    return iter(track(stills, "stills", count, transient=True))
