"""`report`: a batch as one HTML page."""

from __future__ import annotations

import shlex
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.figures import counted
from ..core.job import State
from ..core.text import visible
from ..engine.clock import wall
from ..exits import EXIT_OK, UsageError
from .ledgers import complete_batches, reading_known
from .options import absolute, db_option, ledger_path, selection, selection_options, states_option
from .tables import note, on_terminal, say, warn

if TYPE_CHECKING:
    from ..core.morning import Morning
    from ..report.clips import Clip

NAME = "report.html"

MAILABLE = 25_000_000
"""Bytes that most mail servers take."""

EMBEDDABLE = 300_000_000
"""Bytes of clips that go into one page: a browser opens no text beyond some 512 MB, and base64 adds a third."""


@click.command(
    epilog="""\b
Examples:
  batchrunner report nightly-beach
  batchrunner report nightly-beach --out ~/morning.html
  batchrunner report nightly-beach --tag hero --state succeeded --embed --out hero.html     one file to mail

\b
Written to report.html in the folder of the batch's outputs, unless --out names another file. The page finds the clips
beside itself, by relative paths: move the folder as a whole, or use --embed. It opens from a file, needs no network,
and can be made anew at any time, also while a run is alive. A file that is not a report of this batch is never
overwritten.
"""
)
@click.argument("batch", shell_complete=complete_batches)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write this file.")
@click.option("--embed", is_flag=True, help="Put the clips into the page: one file, to mail.")
@click.option("--no-posters", is_flag=True, help="Don't make still pictures of the clips.")
@states_option
@selection_options
@db_option
def report(
    batch: str,
    out: Path | None,
    embed: bool,
    no_posters: bool,
    states: tuple[State, ...],
    only: tuple[str, ...],
    tags: tuple[str, ...],
    db: Path | None,
) -> int:
    """One self-contained HTML page: clips, costs, failures, the night.

    Summary and timeline, what needs a person's word with the commands for it, failures by cause, costs by shot, and a
    gallery of playable clips to filter, compare and judge.
    """
    path = ledger_path(db)
    now = wall()
    with reading_known(path) as connection:
        morning = _read(connection, batch, states, only, tags, now)
    chosen = _options(states, only, tags)
    target = absolute(out if out is not None else Path(morning.status["output_dir"]) / NAME)
    size, problems = _write(morning, path, target, chosen=chosen, embed=embed, posters=not no_posters, now=now)
    say(f"{counted(len(morning.entries), 'job')} in {visible(str(target))}")
    if problems:
        warn(f"{counted(problems, 'file')} missing or changed since stored; the page says which")
    if embed and size > MAILABLE:
        note(f"It has {size / 1e6:.0f} MB; many mail servers take no more than {MAILABLE // 1_000_000}")
    return EXIT_OK


def _read(
    connection: sqlite3.Connection,
    batch: str,
    states: tuple[State, ...],
    only: tuple[str, ...],
    tags: tuple[str, ...],
    now: float,
) -> Morning:
    from ..ledger.night_queries import morning

    return morning(connection, batch, states, selection(only, tags), now)


def _options(states: tuple[State, ...], only: tuple[str, ...], tags: tuple[str, ...]) -> list[str]:
    """The options that chose the jobs, as they were given."""
    given = [("--state", s.value) for s in states] + [("--only", g) for g in only] + [("--tag", t) for t in tags]
    return [word for pair in given for word in pair]


def _write(
    morning: Morning, path: Path, target: Path, *, chosen: list[str], embed: bool, posters: bool, now: float
) -> tuple[int, int]:
    """Write the page; returns its bytes, and how many clips it can't show."""
    from ..report import clips, commands, files, render, view

    def ours(head: bytes) -> bool:
        return render.is_report(head, morning.batch)

    words = commands.Commands(path)
    again = words.say("report", morning.batch, *map(commands.word, [*chosen, *_again(target, morning, embed=embed)]))
    outputs = [
        None if e.job["output"] is None else clips.find(e.job["output"], e.job["bytes"], target.parent)
        for e in morning.entries
    ]
    try:
        if target.parent == Path(morning.status["output_dir"]):
            target.parent.mkdir(parents=True, exist_ok=True)
        files.look(target, ours)  # before the work
        if embed:
            _check_embeddable(outputs)
        stills = _posters(outputs) if posters else [None] * len(outputs)
        page = render.page(
            morning,
            view.view(morning, outputs, words, selected=shlex.join(chosen), now=now),
            outputs,
            stills,
            embed=embed,
            again=again,
            lost=lambda clip: warn(f"{visible(str(clip.path))} could not be read"),
        )
        size = files.write(target, page, ours)
    except files.NotOurs as refused:
        raise UsageError(f"{refused}; name another file with --out") from None
    except OSError as error:
        raise UsageError(f"can't write {target}: {error.strerror}") from None
    return size, sum(1 for clip in outputs if clip is not None and clip.problem)


def _again(target: Path, morning: Morning, *, embed: bool) -> list[str]:
    words = ["--embed"] if embed else []
    if target != Path(morning.status["output_dir"]) / NAME:
        words += ["--out", str(target)]
    return words


def _check_embeddable(outputs: list[Clip | None]) -> None:
    size = sum(clip.size or 0 for clip in outputs if clip is not None and not clip.problem)
    if size > EMBEDDABLE:
        raise UsageError(
            f"the clips have {size / 1e6:,.0f} MB, and a page with more than {EMBEDDABLE // 1_000_000} does not open; "
            "choose fewer with --tag, --only or --state, or leave out --embed"
        )


def _posters(outputs: list[Clip | None]) -> list[str | None]:
    """A still for each entry, None where there is none; with a bar where somebody looks."""
    from ..report import posters

    wanted = [i for i, c in enumerate(outputs) if c is not None and not c.problem and c.kind in ("video", "image")]
    found: list[str | None] = [None] * len(outputs)
    paths = [c.path for i in wanted if (c := outputs[i]) is not None]
    made = posters.make(paths, posters.width_for(len(wanted)))
    if on_terminal() and len(wanted) > 200:
        from rich.progress import track

        made = iter(track(made, "stills", len(wanted), transient=True))
    for index, still in zip(wanted, made, strict=True):
        found[index] = still
    return found
