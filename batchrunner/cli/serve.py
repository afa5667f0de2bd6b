"""`serve`: the live page."""

from __future__ import annotations

import asyncio
import signal

import click

from ..core.text import visible
from ..exits import EXIT_OK
from ..ledger.address import Address
from .ledgers import complete_batches, db_words
from .options import db_option, ledger_path
from .tables import say


@click.command(
    epilog="""\b
Examples:
  batchrunner serve
  batchrunner serve nightly-beach --port 0          a free port
  batchrunner serve --control                       with pause, continue, limits and cancel
  curl -s http://127.0.0.1:8765/metrics             for Prometheus: pip install 'batchrunner[metrics]'

\b
Reads the ledger beside a run, after it, and before there is one. Everybody with an account on this machine can open
the page; only who has the token that --control prints can change anything. For another machine, let ssh carry it:
ssh -L 8765:127.0.0.1:8765 HOST
"""
)
@click.argument("batch", required=False, shell_complete=complete_batches)
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 for a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--control", is_flag=True, help="Let the page pause, continue, limit and cancel; prints a token.")
@db_option
def serve(batch: str | None, port: int, host: str, control: bool, db: Address | None) -> int:
    """A live page of the ledger's batches, for a browser on this machine.

    Serves until Ctrl-C.
    """
    import secrets

    token = secrets.token_urlsafe(24) if control else None
    asyncio.run(_serve(ledger_path(db), batch, host, port, token))
    return EXIT_OK


async def _serve(ledger: Address, batch: str | None, host: str, port: int, token: str | None) -> None:
    from ..live.server import LiveServer

    server = LiveServer(ledger, batch=batch, token=token, words=db_words(ledger))
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    url = await server.start(host, port)
    try:
        say(url if token is None else f"{url}#token={token}")
        say(f"# the ledger {visible(str(ledger))}; Ctrl-C ends it")
        await over.wait()
    finally:
        await server.stop()
