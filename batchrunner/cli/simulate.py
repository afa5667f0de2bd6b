"""`simulate`: the provider's API on this machine, with faults on demand."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..exits import EXIT_OK, UsageError
from .options import any_db_option, models_option
from .tables import say

if TYPE_CHECKING:
    from ..simulator import SimulatorSettings


class _Command(click.Command):
    """Lists the faults under the options, without importing them for any other verb."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from ..simulator.faults import FAULTS

        with formatter.section("Faults"):
            formatter.write_dl(
                [(name, kind.text + (f" (:{kind.unit})" if kind.unit else "")) for name, kind in FAULTS.items()]
            )
        super().format_epilog(ctx, formatter)


@click.command(
    cls=_Command,
    epilog="""\b
Examples:
  batchrunner simulate --port 8400
  batchrunner simulate --fault drop_after=0.02 --fault throttle=next:3:5 --median 2
  curl -s http://127.0.0.1:8400/_simulator/account

\b
A fault is NAME=P (a probability), NAME=next:N (the next N times), or bare NAME (always); a number may follow
after a colon. To run one manifest against a simulator of its own: batchrunner run MANIFEST --simulate
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default, picks a free one.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides times and faults, so that they repeat.")
@click.option("--fault", "faults", multiple=True, metavar="NAME=P", help="What goes wrong; see below.")
@click.option("--median", type=click.FloatRange(min=0), default=8.0, show_default=True, help="Seconds a task takes.")
@click.option("--sigma", type=click.FloatRange(min=0), default=0.4, show_default=True, help="Spread of that time.")
@click.option(
    "--balance", type=click.IntRange(min=0), default=1_000_000, show_default=True, help="Credits at the start."
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Calls a minute; more get 429.")
@click.option(
    "--submits", type=click.FloatRange(min=0, min_open=True), metavar="N", help="POSTs a minute; more get 429."
)
@click.option("--in-flight", type=click.IntRange(min=1), metavar="N", help="Tasks at once; more get 429.")
@click.option(
    "--url-ttl", type=click.FloatRange(min=0), default=3600.0, show_default=True, help="Seconds an output URL lives."
)
@click.option(
    "--clips",
    type=click.Choice(["rendered", "tiny"]),
    default="rendered",
    show_default=True,
    help="Real video, or a few bytes.",
)
@click.option(
    "--state", type=click.Path(dir_okay=False, path_type=Path), help="File in which account and tasks are kept."
)
@models_option
@any_db_option
def simulate(
    host: str,
    port: int,
    seed: int,
    faults: tuple[str, ...],
    median: float,
    sigma: float,
    balance: int,
    rate: float | None,
    submits: float | None,
    in_flight: int | None,
    url_ttl: float,
    clips: str,
    state: Path | None,
) -> int:
    """A local server that speaks the provider's API.

    Prints its address and the environment that points batchrunner at it, then serves until Ctrl-C. Free; nothing
    leaves this machine.
    """
    from ..simulator import SimulatorSettings, parse_faults
    from .loading import models_in_use

    models = models_in_use()
    try:
        settings = SimulatorSettings(
            median_seconds=median,
            sigma=sigma,
            seed=seed,
            balance=balance,
            requests_per_minute=rate,
            submits_per_minute=submits,
            in_flight=in_flight,
            url_ttl=url_ttl,
            clips=clips,
            state=state,
            faults=parse_faults(faults),
            models=models,
        )
        asyncio.run(_serve(settings, host, port))
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"can't serve on {host}:{port}: {error.strerror or error}") from None
    return EXIT_OK


async def _serve(settings: SimulatorSettings, host: str, port: int) -> None:
    from ..simulator import Simulator

    simulator = Simulator(settings)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    url = await simulator.start(host, port)
    try:
        say(url)
        say(f"export REAPI_BASE_URL={url}")
        say("export REAPI_API_KEY=rk_simulated")
        say(f"export FAL_BASE_URL={url} FAL_KEY=rk_simulated")
        say(f"export REPLICATE_BASE_URL={url} REPLICATE_API_TOKEN=rk_simulated")
        say(f"# its books: {url}/_simulator/account   Ctrl-C ends it")
        await over.wait()
    finally:
        await simulator.stop()
