"""Options that several verbs share, and what their values mean."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..core.selection import Selection
from ..core.states import State
from ..exits import DEFAULT_DB, simulated_name
from ..ledger.address import Address, Server, is_url, parse

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhd])+")


class Duration(click.ParamType[float]):
    """`90s`, `10m`, `5h`, `1h30m`: seconds as a float."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        if not _DURATION.fullmatch(text):
            self.fail(f"{text!r} is not a duration; write 90s, 10m, 5h or 1h30m", param, ctx)
        return sum(float(n) * _UNITS[u] for n, u in re.findall(r"([0-9.]+)([smhd])", text))


class TimeOfDay(click.ParamType[datetime.time]):
    """`06:00`: a local time."""

    name = "HH:MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime.time:
        if isinstance(value, datetime.time):
            return value
        try:
            found = datetime.time.fromisoformat(str(value))
        except ValueError:
            found = None
        if found is None or found.tzinfo is not None:
            self.fail(f"{str(value)!r} is not a local time; write it like 06:00", param, ctx)
        return found


class Ledger(click.Path):
    """A ledger: a file, or a database's URL, of which no message ever shows more than `address.Server` does."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, Server):
            return value
        if not is_url(str(value)):
            return super().convert(value, param, ctx)
        try:
            return parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def db_option(function: F) -> F:
    """`--db PATH`, from BATCHRUNNER_DB, with the default in the current folder; the value is None where not given."""
    return click.option(
        "--db",
        type=Ledger(),
        metavar="FILE|URL",
        envvar="BATCHRUNNER_DB",
        show_envvar=True,
        help=f"The ledger: a file (default: {DEFAULT_DB} in the current folder), or postgresql://HOST/NAME.",
    )(function)


def any_db_option(function: F) -> F:
    """`--db` where no ledger is needed: everything takes it, so that a script may give it to everything."""
    return click.option(
        "--db",
        type=Ledger(),
        metavar="FILE|URL",
        envvar="BATCHRUNNER_DB",
        expose_value=False,
        help="The ledger, which is not needed here.",
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")(function)


MODELS = "batchrunner.models"
"""Where the folder of `--models` is kept while a command runs (`loading.models_in_use`)."""


def models_option(function: F) -> F:
    """`--models DIR`, from BATCHRUNNER_MODELS. It is no argument of the command: `loading.models_in_use` reads it."""

    def keep(ctx: click.Context, _param: click.Parameter, folder: Path | None) -> None:
        ctx.meta[MODELS] = folder

    return click.option(
        "--models",
        "models_folder",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        envvar="BATCHRUNNER_MODELS",
        show_envvar=True,
        expose_value=False,
        callback=keep,
        metavar="DIR",
        help="Models of your own, a file MODEL.schema.json each, beside those that are shipped (docs/models.md).",
    )(function)


def wait_option(function: F) -> F:
    return click.option(
        "--wait-lock", type=Duration(), default="0s", help="Wait this long for a run to end, such as 10m."
    )(function)


def balance_option(function: F) -> F:
    return click.option(
        "--no-balance", is_flag=True, help="Don't ask the service what is left on the account, for the plan."
    )(function)


def dry_run_option(function: F) -> F:
    """`--dry-run`, and `--no-balance` for its plan."""
    function = balance_option(function)
    return click.option(
        "--dry-run", is_flag=True, help="Show the plan and its price, as `plan` does; record and send nothing."
    )(function)


def file_option(*names: str, help: str) -> Callable[[F], F]:  # noqa: A002  click's word
    """An option that names a file, which need not be there."""
    return click.option(*names, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help=help)


def run_options(function: F) -> F:
    """The options that `run`, `resume` and `promote` have in common."""
    for option in reversed(
        [
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N new submissions."),
            click.option(
                "--max-credits",
                type=click.IntRange(min=0),
                metavar="N",
                help="Cap on the batch's credits; the smaller of it and the manifest's budget holds.",
            ),
            click.option(
                "--on-unconfirmed",
                type=click.Choice(["hold", "resubmit"]),
                default="hold",
                show_default=True,
                help="What to do at the start with selected jobs whose submission may or may not have been accepted. "
                "resubmit is your recorded consent to pay a second time; a service that can be asked is asked first.",
            ),
            click.option(
                "--until",
                type=TimeOfDay(),
                help="Submit nothing that, by what is known of its kind, would not be done by this local time; "
                "then follow what is running.",
            ),
            click.option("--for", "duration", type=Duration(), help="The same, this long from now, such as 5h."),
            click.option(
                "--from",
                "since",
                type=TimeOfDay(),
                help="With --until: outside these hours submit nothing, only bring home what is in flight. "
                "For a night that was started again by a machine.",
            ),
            click.option(
                "--grace",
                type=Duration(),
                default="1h",
                show_default=True,
                help="How long after --until or --for to follow what is in flight; the next run goes on with it.",
            ),
            click.option(
                "--wait-lock", type=Duration(), default="0s", help="Wait this long for another runner, such as 10m."
            ),
            click.option(
                "--detach",
                is_flag=True,
                help="Record it, leave it to workers, and end. For a ledger in PostgreSQL; see worker --help.",
            ),
            click.option(
                "--simulate", is_flag=True, help="Use the built-in simulator: free, no key, a ledger of its own."
            ),
            click.option(
                "--fault",
                "faults",
                multiple=True,
                metavar="NAME=P",
                help="With --simulate: a fault, see simulate --help.",
            ),
            click.option(
                "--log-file",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Append what happens to this file, a JSON object a line.",
            ),
            click.option(
                "--log-level",
                type=click.Choice(["debug", "info", "warning", "error"]),
                default="info",
                show_default=True,
                help="The least that is worth a line of the log.",
            ),
            click.option(
                "--metrics-file",
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="PATH",
                help="Keep Prometheus metrics in this file for node-exporter: every 15 s, and at the end.",
            ),
            click.option("--quiet", "-q", is_flag=True, help="Print nothing but the summary and errors."),
            json_option,
            db_option,
        ]
    ):
        function = option(function)
    return function


def ledger_path(db: Address | None, *, simulate: bool = False) -> Address:
    """Where the ledger is. Simulated work keeps its own, so that it never mixes with paid work: with `--simulate`,
    only a `--db` given on the command line names it as it stands."""
    path = db or Path(DEFAULT_DB)
    if simulate:
        given = click.get_current_context().get_parameter_source("db") is click.core.ParameterSource.COMMANDLINE
        if not given and isinstance(path, Server):
            return path.simulated
        if not given and isinstance(path, Path):
            return absolute(path.with_name(simulated_name(path.name)))
    return absolute(path) if isinstance(path, Path) else path


def absolute(path: Path) -> Path:
    """Absolute, with symlinks in it as they are (the ledger itself must not be one)."""
    return Path(os.path.abspath(path))


def selection_options(function: F) -> F:
    function = click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only jobs with this tag.")(function)
    return click.option(
        "--only", multiple=True, metavar="GLOB", help="Only jobs whose key or shot matches, such as 'corgi-*'."
    )(function)


def states_option(function: F) -> F:
    """`--state`, any number of them: the value is a tuple of `State`, which is text to SQL."""
    return click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice([s.value for s in State]),
        callback=lambda _ctx, _param, names: tuple(State(name) for name in names),
        help="Only jobs in this state.",
    )(function)


def manifest_options(function: F, *, required: bool = True) -> F:
    """The arguments and options that say what a manifest means."""
    function = variables_option(function)
    function = click.option("--profile", metavar="NAME", help="Apply a profile of the manifest, such as final.")(
        function
    )
    function = models_option(function)
    metavar = "MANIFEST..." if required else "[MANIFEST]..."
    return click.argument("manifests", nargs=-1, required=required, metavar=metavar, type=click.Path())(function)


def variables_option(function: F) -> F:
    return click.option(
        "--var", "variables", multiple=True, metavar="K=V", callback=_variables, help="Override a variable (vars:)."
    )(function)


def _variables(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for item in value:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{item!r} is not of the form name=value", ctx=ctx, param=param)
        found[name] = text
    return found


def selection(only: tuple[str, ...], tags: tuple[str, ...]) -> Selection:
    return Selection(tuple(only), tuple(tags))
