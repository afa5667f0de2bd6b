"""`check`: finished files, looked at again."""

from __future__ import annotations

import sys

import click

from ..core.figures import counted, number
from ..core.text import visible
from ..exits import EXIT_FAILED, EXIT_OK
from ..ledger.address import Address
from .ledgers import complete_both
from .options import Duration, db_option, json_option, ledger_path
from .tables import note, print_json, say


@click.command(
    epilog="""\b
Examples:
  batchrunner check nightly-beach                what came against what was ordered, and the files against their hashes
  batchrunner check nightly-beach --decode       and every clip decoded to its last picture
  batchrunner check 'corgi-*' --json | jq -r '.found[].job'

\b
Nothing is fetched or sent, and no job's state changes: what came is what was paid for. What is found stays with the
job: `show`, `jobs --json` (media) and the report tell it too. Exit code 0: all as ordered; 1: something is not.
"""
)
@click.argument("names", nargs=-1, required=True, metavar="BATCH|JOB...", shell_complete=complete_both)
@click.option("--decode", is_flag=True, help="Decode every file to its end: up to 4 s of a core for 5 s of 1080p.")
@click.option("--wait-lock", type=Duration(), default="0s", help="Wait this long for a run to end, such as 10m.")
@json_option
@db_option
def check(names: tuple[str, ...], decode: bool, wait_lock: float, as_json: bool, db: Address | None) -> int:
    """Look at finished files again: whole, unchanged, and as ordered?"""
    from .. import checking

    shown = sys.stderr.isatty() and not as_json
    done = checking.check(ledger_path(db), names, decode=decode, wait=wait_lock, tell=_progress if shown else None)
    if as_json:
        found = [{"batch": f.batch, "job": f.job, "warnings": f.warnings, "disk": f.disk} for f in done.found]
        print_json({"jobs": done.jobs, "files": done.files, "found": found, "not_decoded": sorted(done.not_decoded)})
    else:
        for one in done.found:
            for word in (*one.disk, *one.warnings):
                say(f"{visible(one.job)}: {visible(word)}")
        bad = len(done.found)
        end = f"{number(bad)} not as they should be" if bad else "all as ordered"
        say(f"{counted(done.jobs, 'job')}, {counted(done.files, 'file')}: {end}" if done.jobs else "no finished files")
        for why in sorted(done.not_decoded):
            note(f"not decoded: {visible(why)}")
    return EXIT_FAILED if done.found else EXIT_OK


def _progress(done: int, of: int) -> None:
    click.echo(f"\r{number(done)} of {number(of)}{chr(10) if done == of else ''}", nl=False, err=True)
