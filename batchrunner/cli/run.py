"""`run`, `resume` and `promote`: the main job."""

from __future__ import annotations

import datetime
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .. import app
from ..core.frozen import Arguments, Frozen
from ..core.notice import restored
from ..core.promotion import promoted
from ..core.selection import Selection
from ..core.text import visible
from ..exits import EXIT_SIGTERM
from ..ledger import queries
from ..ledger.address import Address, Server
from ..ledger.connection import postgres
from ..planning import Funds, funds, hold_to, make_plans, plan_promotion
from .ledgers import complete_batches, reading, reading_known
from .options import (
    absolute,
    dry_run_option,
    file_option,
    ledger_path,
    manifest_options,
    models_option,
    run_options,
    selection_options,
    variables_option,
)
from .options import selection as selection_of
from .telling import Teller, logging, tracing

if TYPE_CHECKING:
    from ..ledger.early import EarlyLook
    from ..manifest import Manifest, Promotion
    from ..runlog import RunLog


@click.command(
    epilog="""\b
Examples:
  batchrunner run first.yaml --simulate
  batchrunner run nightly.yaml --profile final --max-credits 5000
  batchrunner run nightly.yaml --only 'corgi-*' --limit 3
  batchrunner run nightly.yaml --until 06:00 --json >> night.ndjson
  batchrunner run --plan plan.json                         what `plan --out plan.json` froze, or nothing
"""
)
@partial(manifest_options, required=False)
@selection_options
@dry_run_option
@file_option("--plan", "plan_file", help="Pay for what this frozen plan pays for, and nothing else; see plan --out.")
@run_options
def run(
    manifests: tuple[str, ...],
    variables: dict[str, str],
    profile: str | None,
    only: tuple[str, ...],
    tags: tuple[str, ...],
    dry_run: bool,
    no_balance: bool,
    plan_file: Path | None,
    db: Address | None,
    as_json: bool,
    simulate: bool,
    **rest: Any,
) -> int:
    """Do the main job: submit what is pending, poll, download, until everything has ended.

    Run the same command again to continue after a crash, a signal, a limit or an empty account: a job that was paid
    for is never paid for twice, and a finished file is never fetched again. With --plan, manifests, profile, variables
    and selection are those that the plan was made with.
    """
    from .loading import load_all

    path = ledger_path(db, simulate=simulate)
    given = Arguments(profile, variables, only, tags)
    frozen = None
    teller = None if dry_run else Teller(path, simulated=simulate, elsewhere=rest["detach"])
    with nullcontext() if teller is None else teller.of_errors():
        if plan_file is not None:
            from .frozen import thaw

            if rest["on_unconfirmed"] == "resubmit":
                raise app.UsageError("--on-unconfirmed resubmit may pay for what no plan has; leave out one of them")
            frozen, manifests, given = thaw(plan_file, path, manifests, given)
        elif not manifests:
            raise click.UsageError("Missing argument 'MANIFEST...'.", click.get_current_context())
        chosen = selection_of(given.only, given.tags)
    # Where the ledger is read here all the same, a second look beside it would only be in the way.
    with nullcontext() if dry_run or frozen is not None else app.look_early(path) as look:
        with nullcontext() if teller is None else teller.of_errors():
            loaded = load_all(manifests, profile=given.profile, variables=given.variables or {}, as_json=as_json)
            if dry_run or frozen is not None:
                with reading(path) as connection:
                    if frozen is not None:  # once more under the lock; here before a ledger is made
                        hold_to(frozen, loaded, chosen, connection)
                    if dry_run:
                        from .plan import print_plan

                        plans = make_plans(loaded, connection, chosen)
                        account = (
                            Funds() if no_balance or simulate else funds(path, connection, {m.provider for m in loaded})
                        )
                        return print_plan(plans, as_json=as_json, account=account)
        return _go(
            db=path,
            manifests=loaded,
            selection=chosen,
            as_json=as_json,
            simulate=simulate,
            plan=frozen,
            look=look,
            teller=teller,
            **rest,
        )


@click.command(
    epilog="""\b
Examples:
  batchrunner resume                 every unfinished batch of the ledger
  batchrunner resume nightly-beach
"""
)
@click.argument("batches", nargs=-1, metavar="[BATCH]...")
@selection_options
@models_option
@run_options
def resume(
    batches: tuple[str, ...],
    only: tuple[str, ...],
    tags: tuple[str, ...],
    db: Address | None,
    as_json: bool,
    simulate: bool,
    **rest: Any,
) -> int:
    """Continue unfinished batches from the ledger alone, without the manifest."""
    path = ledger_path(db, simulate=simulate)
    teller = Teller(path, simulated=simulate, elsewhere=rest["detach"])
    with teller.of_errors(), reading(path) as connection:
        if connection is None:
            raise app.UsageError(f"no ledger at {path}; name it with --db, or start with `batchrunner run MANIFEST`")
        teller.of((name, restored(kept)) for name, kept in queries.sinks(connection, batches))
    return _go(
        db=path,
        batches=batches,
        selection=selection_of(only, tags),
        as_json=as_json,
        simulate=simulate,
        teller=teller,
        **rest,
    )


@click.command(
    epilog="""\b
Examples:
  batchrunner approve 'corgi-*'                                     which drafts have won
  batchrunner promote nightly-beach --profile final --dry-run       what their finals would cost
  batchrunner promote nightly-beach --profile final --max-credits 5000
  batchrunner promote nightly-beach --profile final --limit 3       the first three; again for the others
"""
)
@click.argument("batch", shell_complete=complete_batches)
@click.option("--profile", required=True, metavar="NAME", help="The profile of the manifest, such as final.")
@variables_option
@file_option("--manifest", help="The manifest that has the profile, where it is not where it was.")
@dry_run_option
@models_option
@run_options
def promote(
    batch: str,
    profile: str,
    variables: dict[str, str],
    manifest: Path | None,
    dry_run: bool,
    no_balance: bool,
    db: Address | None,
    as_json: bool,
    simulate: bool,
    **rest: Any,
) -> int:
    """Make the finals of approved drafts: their own requests, with a profile's fields over them.

    Every approved job of BATCH becomes a job JOB@PROFILE of the same batch, under its budget, and is run. Promoting
    twice costs once; a draft that was changed and approved anew is promoted anew. The profile, the budget and the
    limits are those of the manifest that the batch was recorded from; its shots are not looked at.
    """
    from .loading import load_promotion

    path = ledger_path(db, simulate=simulate)
    teller = None if dry_run else Teller(path, simulated=simulate, elsewhere=rest["detach"])
    with nullcontext() if teller is None else teller.of_errors(), reading_known(path) as connection:
        promotion = load_promotion(connection, batch, profile, variables, manifest)
        plan = plan_promotion(promotion, connection)
        if dry_run:
            from .plan import print_plan

            account = Funds() if no_balance or simulate else funds(path, connection, {promotion.provider})
            return print_plan([plan], as_json=as_json, account=account)
    return _go(
        db=path,
        promotion=promotion,
        selection=promoted(profile),
        as_json=as_json,
        simulate=simulate,
        teller=teller,
        **rest,
    )


def _go(
    *,
    db: Address,
    selection: Selection,
    as_json: bool,
    quiet: bool,
    until: datetime.time | None,
    duration: float | None,
    since: datetime.time | None,
    grace: float,
    wait_lock: float,
    on_unconfirmed: str,
    faults: tuple[str, ...],
    simulate: bool,
    limit: int | None,
    max_credits: int | None,
    log_file: Path | None,
    log_level: str,
    look: EarlyLook | None = None,
    manifests: list[Manifest] | None = None,
    batches: Sequence[str] = (),
    plan: Frozen | None = None,
    promotion: Promotion | None = None,
    teller: Teller | None = None,
    metrics_file: Path | None = None,
    detach: bool = False,
) -> int:
    from .display import watcher_for
    from .errors import drop_stdout
    from .loading import models_in_use

    if faults and not simulate:
        raise app.UsageError("--fault needs --simulate")
    options = app.RunOptions(
        db=db,
        manifests=[] if manifests is None else manifests,
        batches=batches,
        simulate=simulate,
        faults=faults,
        selection=selection,
        limit=limit,
        max_credits=max_credits,
        resubmit=on_unconfirmed == "resubmit",
        until=_deadline(until, duration, since),
        wait_lock=wait_lock,
        plan=plan,
        promotion=promotion,
        settings=app.Settings(grace=grace),
        models=models_in_use(),
        remote=True,
        look=look,
    )
    early_signals()
    teller = teller or Teller(db, simulated=simulate)
    teller.of((asked.batch, asked.notify) for asked in ([promotion] if promotion else options.manifests))
    with (
        _metrics(metrics_file, db),
        watcher_for(db, as_json=as_json, quiet=quiet) as watcher,
        tracing(watcher) as traced,
        logging(traced, log_file, log_level) as log,
    ):
        with teller.of_errors(log):
            result = _do(options, log, detach=detach)
        try:
            watcher.summary(result)
        except OSError:  # a pipe without a reader, a terminal that was closed, a full disk under a log
            drop_stdout()  # the exit code still says how it went
        teller.of_result(result, log)
    return result.exit_code


def _do(options: app.RunOptions, log: RunLog, *, detach: bool) -> app.RunResult:
    """Do it here; or leave it to workers, where some are alive on the ledger."""
    if isinstance(options.db, Server) and not options.simulate:
        with postgres(workers=detach):
            from ..ledger.postgres import peers

            if detach or peers.anybody(options.db):
                from ..cluster.handing import hand_over

                return hand_over(options, log, detach=detach)
    elif detach:
        raise app.UsageError("--detach leaves work to workers, who share a ledger in PostgreSQL: --db postgresql://...")
    return app.run(options, log)


def _metrics(path: Path | None, db: Address) -> AbstractContextManager[object]:
    """What keeps the metrics file, where one is asked for."""
    if path is None:
        return nullcontext()
    from ..live.textfile import MetricsFile
    from .tables import warn

    return MetricsFile(absolute(path), db, lambda text: warn(visible(text)))


def early_signals() -> None:
    """Until the run has its own way of ending (`engine.signals`), SIGTERM and a terminal that closes end it as a
    keyboard interrupt does. What is ignored (`nohup`) stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminated)


def _terminated(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(EXIT_SIGTERM)


def _deadline(until: datetime.time | None, duration: float | None, since: datetime.time | None = None) -> float | None:
    """Seconds from now until the earlier of `--until` and `--for`; None for neither."""
    if since is not None and until in (None, since):
        raise app.UsageError("--from needs an --until at another time: --from 22:00 --until 06:00")
    ends = [] if duration is None else [duration]
    if until is not None:
        ends.append(app.seconds_left(until, since))
    return min(ends, default=None)
