"""`export`: a batch's results for spreadsheets and scripts."""

from __future__ import annotations

from pathlib import Path

import click

from ..core.figures import counted
from ..core.job import State
from ..core.text import visible
from ..exits import EXIT_OK, UsageError
from ..ledger.address import Address
from .ledgers import complete_batches, reading_known
from .options import absolute, db_option, ledger_path, selection, selection_options, states_option
from .tables import Counter, print_pieces, say


@click.command(
    epilog="""\b
Examples:
  batchrunner export nightly-beach > nightly.csv
  batchrunner export nightly-beach --out nightly.jsonl --state succeeded
  batchrunner export nightly-beach --format json | jq 'map(.credits) | add'

\b
A row a job, with the keys of `jobs --json`; old revisions, and jobs no longer in the manifest, come last, with
"current": false. No cell of the CSV is a formula to a spreadsheet. With --out, a file that was not exported by
batchrunner is never overwritten.
"""
)
@click.argument("batch", shell_complete=complete_batches)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["csv", "json", "jsonl"]),
    help="Default: by the ending of --out, else csv.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write this file (default: stdout)."
)
@states_option
@selection_options
@db_option
def export(
    batch: str,
    format_name: str | None,
    out: Path | None,
    states: tuple[State, ...],
    only: tuple[str, ...],
    tags: tuple[str, ...],
    db: Address | None,
) -> int:
    """Results as CSV, JSON or JSONL."""
    from ..ledger import described, naming
    from ..report import files, results

    if format_name is None:
        ending = out.suffix[1:].lower() if out is not None else ""
        format_name = ending if ending in results.FORMATS else "csv"
    with reading_known(ledger_path(db)) as connection:
        naming.find_batch(connection, batch)
        jobs = Counter(described.jobs(connection, batch, states, selection(only, tags)))
        pieces = results.encoded(results.FORMATS[format_name](jobs))
        if out is None:
            print_pieces(pieces)
            return EXIT_OK
        path = absolute(out)
        try:
            files.look(path, _ours)  # before the work
            files.write(path, pieces, _ours)
        except files.NotOurs as refused:
            raise UsageError(f"{refused}; name another file") from None
        except OSError as error:
            raise UsageError(f"can't write {path}: {error.strerror}") from None
    say(f"{counted(jobs.count, 'job')} in {visible(str(out))}")
    return EXIT_OK


def _ours(head: bytes) -> bool:
    from ..report import results

    return head.startswith(results.BEGINNINGS)
