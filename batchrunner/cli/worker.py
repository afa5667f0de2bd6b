"""`worker`: one of several that do the batches of a ledger in PostgreSQL."""

from __future__ import annotations

import click

from ..exits import UsageError
from ..ledger.address import Address, Server
from ..ledger.connection import postgres
from .options import Duration, db_option, json_option, ledger_path, models_option
from .run import early_signals
from .tables import say


@click.command(
    epilog="""\b
Examples:
  export BATCHRUNNER_DB=postgresql://db.example/night REAPI_API_KEY=...
  batchrunner worker                                on any number of hosts
  batchrunner worker --in-flight 20                 a small one
  batchrunner worker --only download                on the host with the disk
  batchrunner worker --provider fal                 of the services whose keys are set, only this one
  batchrunner run night.yaml --detach               what they do
"""
)
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most N tasks in flight of this worker; the manifests' limits.in_flight holds for all of them together.",
)
@click.option(
    "--only", type=click.Choice(["submit", "download"]), help="Only send and poll, or only download. Without: both."
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="Only this service's jobs; more than once for several. Without: every service whose key is set here.",
)
@click.option("--until-idle", is_flag=True, help="End when nothing is left to do, instead of waiting for more.")
@click.option(
    "--prune",
    type=Duration(),
    default="30s",
    show_default=True,
    envvar="BATCHRUNNER_PRUNE",
    show_envvar=True,
    help="Take a worker for dead that gave no sign of life for so long. The same for all of them.",
)
@click.option(
    "--wait-lock", type=Duration(), default="0s", help="Wait this long for a run that has the ledger to itself."
)
@click.option("--quiet", "-q", is_flag=True, help="Print errors, and what must not be missed, and nothing else.")
@json_option
@models_option
@db_option
def worker(
    in_flight: int | None,
    only: str | None,
    providers: tuple[str, ...],
    until_idle: bool,
    prune: float,
    wait_lock: float,
    quiet: bool,
    as_json: bool,
    db: Address | None,
) -> int:
    """Do what was left to workers: submit, poll, download, beside any number of others.

    They share the ledger, its budgets, and one rate for the account. What one that died has left, the others take up
    within a minute; what it was sending becomes unconfirmed. SIGTERM ends it: submissions on the wire are answered and
    recorded, the rest is left to the others. Outputs go to the manifests' folders, which all of them must see.
    """
    address = ledger_path(db)
    if not isinstance(address, Server):
        raise UsageError("workers share a ledger in PostgreSQL: name it with --db postgresql://HOST/NAME")
    if prune < 1.0:
        raise UsageError("--prune is at least 1s")
    with postgres(workers=True):
        from ..cluster import shift
    from .display import watcher_for
    from .loading import models_in_use
    from .telling import own_sinks, words_of

    early_signals()
    sinks = own_sinks(address)
    options = shift.WorkerOptions(
        db=address,
        providers=providers,
        in_flight=in_flight,
        part=only or "all",
        until_idle=until_idle,
        prune=prune,
        wait_lock=wait_lock,
        models=models_in_use(),
        words=lambda batch, result: words_of(batch, result, address),
        sinks=sinks,
    )
    outcome = shift.run(options, watcher_for(address, as_json=as_json, quiet=quiet, board=False))
    if outcome.stop is not None and not (quiet or as_json):
        say(f"ended ({outcome.stop.value}): {outcome.message}")
    return shift.code_of(outcome)
