"""`ledger`: a ledger as a whole, not what is in it."""

from __future__ import annotations

from pathlib import Path

import click

from ..core.text import visible
from ..exits import EXIT_OK
from ..ledger.address import Address
from .ledgers import db_words
from .options import Ledger, absolute, db_option, json_option, ledger_path
from .tables import counted, print_json, say


@click.group(
    epilog="""\b
Examples:
  batchrunner ledger copy batchrunner.db postgresql://db.example/night
  batchrunner ledger migrate --db postgresql://owner@db.example/night
"""
)
def ledger() -> None:
    """Copy a whole ledger, or bring its schema up to date.

    A ledger is a file, or a schema in a PostgreSQL database (docs/cluster.md).
    """


@ledger.command(
    epilog="""\b
Examples:
  batchrunner ledger copy batchrunner.db postgresql://db.example/night         out of a file
  batchrunner ledger copy postgresql://db.example/night night.db               and into one
  batchrunner ledger copy postgresql://db.example/night 'postgresql://new.example/night?schema=spring'
"""
)
@click.argument("source", type=Ledger(), metavar="SRC")
@click.argument("target", type=Ledger(), metavar="DST")
@json_option
def copy(source: Address, target: Address, as_json: bool) -> int:
    """Copy a ledger into an empty one, row by row, and compare.

    No run may be alive on either. DST is made where there is none; one that has something in it is refused. It is all
    of SRC or nothing. SRC stays as it is: from then on use only one of the two, or the same jobs are paid for twice.
    Outputs are not moved; their paths stand in the ledger as they are.
    """
    from ..engine.spool import read
    from ..ledger.copying import copy as copy_all

    def waiting(beside: Path) -> bool:
        spool = beside.with_name(beside.name + ".spool")
        return spool.is_file() and bool(read(spool.read_bytes()))

    old, new = (absolute(path) if isinstance(path, Path) else path for path in (source, target))
    rows = copy_all(old, new, waiting)
    if as_json:
        print_json({"from": str(old), "to": str(new), "rows": rows})
        return EXIT_OK
    counts = f"{counted(rows['job'], 'job')}, {counted(sum(rows.values()), 'row')} in all"
    say(f"copied {visible(str(old))} to {visible(str(new))}: {counts}")
    say(f"from here on use{db_words(new) or ' the new one'}, and the old one no more")
    return EXIT_OK


@ledger.command(
    epilog="""\b
Examples:
  batchrunner ledger migrate --db postgresql://owner@db.example/night
"""
)
@json_option
@db_option
def migrate(as_json: bool, db: Address | None) -> int:
    """Make a ledger, or bring its schema to this release's.

    A run makes a ledger where there is none, and brings one in a file up to date by itself. In PostgreSQL that is left
    to the schema's owner, who may be another role than the one that runs: update every machine, then call this once.
    """
    from ..ledger.migrating import migrate as bring

    path = ledger_path(db)
    before, after = bring(path)
    if as_json:
        print_json({"ledger": str(path), "before": before, "after": after})
    elif not before:
        say(f"made a ledger at {visible(str(path))} (schema {after})")
    elif before == after:
        say(f"{visible(str(path))} is up to date (schema {after})")
    else:
        say(f"brought {visible(str(path))} from schema {before} to {after}")
    return EXIT_OK
