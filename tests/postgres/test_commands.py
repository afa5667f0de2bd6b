"""Every command on a ledger in PostgreSQL says what it says on the same ledger in a file."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import pytest

from batchrunner.cli.main import COMMANDS, cli
from batchrunner.core import events as e
from batchrunner.core.job import Problem, State
from batchrunner.ledger.address import Address, Server
from batchrunner.ledger.connection import open_reader
from batchrunner.ledger.copying import copy
from batchrunner.ledger.sql import TABLES
from batchrunner.live.looker import Looker
from tests.acceptance.test_kill import scenario
from tests.cli_support import MANIFEST, Ran, call, make_ledger
from tests.crash.command_line import CommandLine
from tests.double import Double, Plan, Rule
from tests.postgres.server import Postgres
from tests.support import path_to, spec

ASKED: dict[str, Sequence[Sequence[str]]] = {
    "run": [["night.yaml", "--dry-run", "--no-balance"], ["night.yaml", "--dry-run", "--no-balance", "--json"]],
    "resume": [["nights"]],
    "plan": [["night.yaml", "--no-balance"], ["night.yaml", "--no-balance", "--json"]],
    "status": [[], ["--json"], ["night"], ["night", "--json"], ["nights"]],
    "jobs": [
        [],
        ["--json"],
        ["--csv"],
        ["night", "--only", "s[1-3]*", "--json"],
        ["--only", "S1*", "--json"],
        ["--tag", "hero", "--json"],
        ["--state", "failed", "--state", "unconfirmed"],
        ["--verdict", "none", "--json"],
    ],
    "show": [["running-1"], ["failed-1", "--json"], ["night/succeeded-1", "--json"], ["nobody"], ["*-1"]],
    "check": [["nobody"], ["night"]],
    "retry": [["night"], ["failed-1", "--json"]],
    "resolve": [
        ["running-1", "--abandon"],
        ["unconfirmed-1", "--task-id", "task_0123456789", "--json"],
        ["u*", "--abandon"],
    ],
    "cancel": [["pending-1", "--why", "no"], ["nobody"], ["succeeded-1"]],
    "approve": [["s*", "--note", "the light is right"]],
    "reject": [["succeeded-1", "--json"]],
    "promote": [["night", "--profile", "final", "--dry-run", "--no-balance"]],
    "report": [["night", "--out", "page.html", "--no-stills"]],
    "export": [["night", "--format", "csv"], ["night", "--format", "json"]],
    "pause": [[]],
    "continue": [["--json"]],
    "limits": [[]],
    "serve": [],  # `test_the_live_page`
    "init": [["--nightly", "night.yaml", "--to", "units"]],
    "doctor": [],  # its words about a file are a file's
    "ledger migrate": [[]],
    # These look at no ledger; they take --db as everything does.
    "validate": [["night.yaml"]],
    "models": [[], ["--json"]],
    "providers": [[], ["--json"]],
    "schema": [["kling-3-0-turbo"]],
    "simulate": [],  # would serve for ever
    "worker": [],  # has no ledger in a file
}
"""Every command that takes --db, and what it is asked."""


def taking_db() -> Iterator[str]:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        inner = {f"{name} {n}": c for n, c in command.commands.items()} if isinstance(command, click.Group) else {}
        for verb, one in (inner or {name: command}).items():
            if any(p.name == "db" for p in one.params):
                yield verb


def test_no_command_is_forgotten() -> None:
    assert sorted(ASKED) == sorted(taking_db())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("BATCHRUNNER_DB", "REAPI_API_KEY", "REAPI_KEY", "REAPI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "night.yaml").write_text(MANIFEST)
    return tmp_path


@pytest.fixture
def both(postgres: Postgres, folder: Path) -> tuple[Server, Path]:
    """One ledger, twice."""
    server, file = postgres.ledger(), folder / "copy.db"
    jobs: list[tuple[Any, Sequence[e.Event]]] = [
        (spec(s.value, tags=["hero"] if n % 2 else []), path_to(s, f"t_{s.value}")) for n, s in enumerate(State)
    ]
    coded = (e.Claimed(), e.Rejected(Problem("no: a\0b", "moderation_x", 400, "req_9")))
    jobs += [(spec("coded", matrix={"place": "beach", "n": 2}), coded), (spec("free", credits=None), ())]
    make_ledger(server, jobs, max_credits=99999)
    make_ledger(server, [(spec("moon", prompt="2"), ())], name="moons", output_dir="/out/moons")
    again = [(asked, ()) for asked, _ in jobs[:-1]]
    make_ledger(server, [*again, (spec("free", prompt="another"), ())], max_credits=88888)
    copy(server, file, lambda _spool: False)
    return server, file


def plain(ran: Ran, address: Address) -> tuple[int, str, str]:
    """What was said, but for the ledger's name and the time of day."""
    names = [str(address), Path(address).name] if isinstance(address, Path) else [str(address)]
    words = []
    for text in (ran.out, ran.err):
        for name in names:
            text = text.replace(f"'{name}'", "LEDGER").replace(name, "LEDGER")
        words.append(re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+|\b17[0-9]{8}[.][0-9]+", "TIME", text))
    return ran.code, words[0], words[1]


def test_every_command(both: tuple[Server, Path], folder: Path) -> None:
    server, file = both
    for verb, questions in ASKED.items():
        for question in questions:
            said = []
            for address in both:
                ran = call(*verb.split(), *question, "--db", str(address))
                assert ran.code in {0, 1, 2}, (verb, question, ran)
                said.append(plain(ran, address))
                for page in folder.glob("page.html"):
                    page.unlink()
                for unit in folder.glob("units/*"):
                    unit.unlink()
            on_server, in_file = said
            assert [p for p in zip_longest(_lines(on_server), _lines(in_file)) if p[0] != p[1]] == [], (verb, question)
    assert _rows(server) == _rows(file), "what they wrote is the same too"


def _lines(said: tuple[int, str, str]) -> list[str]:
    return [str(said[0]), *said[1].splitlines(), *said[2].splitlines()]


def _rows(address: Address) -> dict[str, list[dict[str, Any]]]:
    """Everything in a ledger but times."""
    reader = open_reader(address)
    assert reader is not None
    try:
        return {
            table: sorted(
                (
                    {k: row[k] for k in row.keys() if not k.endswith(("at", "_again"))}  # noqa: SIM118
                    for row in reader.execute(f"SELECT * FROM {table}")
                ),
                key=str,
            )
            for table in TABLES
        }
    finally:
        reader.close()


def test_the_live_page(both: tuple[Server, Path]) -> None:
    async def seen(address: Address) -> tuple[Any, ...]:
        looker = Looker(address)
        try:
            return await looker.snapshot(), await looker.grid(None, 0), await looker.grid("night", 0)
        finally:
            await looker.close()

    server, file = both
    assert json.dumps(asyncio.run(seen(server))) == json.dumps(asyncio.run(seen(file)))


def test_doctor(both: tuple[Server, Path]) -> None:
    ran = call("doctor", "--offline", "--db", str(both[0]), "--json")
    checks = {one["check"]: one for one in ran.json["checks"]}
    assert "sound, 2 batches" in checks["ledger"]["text"]
    assert checks["lock"]["text"] == "free"


@pytest.mark.slow
def test_beside_a_run(double: Double, postgres: Postgres, tmp_path: Path) -> None:
    """A second runner leaves with 5, readers read, and a second terminal finds the run's socket."""
    name, server = scenario(tmp_path), postgres.ledger()
    environment = dict(double.open(name, Plan([Rule("post", "hold")], polls=1)).environment)
    line = CommandLine(tmp_path, {**environment, "BATCHRUNNER_DB": f"{server.url}?schema={server.schema}"})
    line.write(2)
    first = line.start("run", "night.yaml")
    first.until("accepted")  # the other job's POST is held back: the run can't end now

    assert line.call("run", "night.yaml") == 5
    assert line.ask("status", "night")["run"]["alive"]
    assert line.ask("limits", "--in-flight", "1")["in_flight_limit"] == 1

    double.release(name)
    assert first.end() == 0
    assert line.ask("status", "night")["states"]["succeeded"] == 2
