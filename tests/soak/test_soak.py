"""A small soak in the gate (the large one: `docs/soak.md`), and that its measures can fail."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Output, State
from batchrunner.simulator.tiny import mp4
from tests.cli_support import make_ledger
from tests.soak.account import SECONDS, check
from tests.soak.run import Order, soak
from tests.soak.watch import Sample, growing, quarters, table
from tests.support import path_to, spec


@pytest.mark.slow
def test_a_small_soak(tmp_path: Path) -> None:
    order = Order(1500, seed=7, in_flight=200, median=0.3, early=2, late=1, every=0.25)

    told = soak(order, tmp_path)

    print(table(told.samples))
    print(told.verdict.counts)
    assert told.wrong == [], f"seed {order.seed}"
    counts = told.verdict.counts
    assert counts["jobs"] == 1500
    assert counts["states"]["succeeded"] > 1400
    assert counts["refunded"] > 0
    assert sum(run["code"] is None for run in told.runs) == 4, "so often it was killed"


def samples(**grows: int) -> list[Sample]:
    """A process of 100 looks that grows by so much at each, after one that was killed early."""
    first = [Sample(0.0, 0, n, 10_000, 9, 4, 0.1) for n in range(5)]
    return first + [
        Sample(
            float(n), 1, 5 + n, 80_000 + grows.get("rss", 0) * n, 60 + grows.get("descriptors", 0) * n,
            16 + grows.get("threads", 0) * n, 1.0,
        )
        for n in range(100)
    ]  # fmt: skip


def test_what_does_not_grow_is_flat() -> None:
    parts = quarters(samples())

    assert [len(part) for part in parts] == [25, 25, 25, 25]
    assert growing(parts, 8192, 32) == []


@pytest.mark.parametrize(
    ("grows", "word"), [({"rss": 200}, "memory"), ({"descriptors": 1}, "descriptors"), ({"threads": 1}, "threads")]
)
def test_what_grows_is_seen(grows: dict[str, int], word: str) -> None:
    (told,) = growing(quarters(samples(**grows)), 8192, 32)

    assert told.startswith(word)


def test_too_few_looks_prove_nothing() -> None:
    assert growing(quarters(samples()[5:7]), 8192, 32) != []


# --- The account -------------------------------------------------------------------------------------------


@pytest.fixture
def night(tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    """A ledger, its outputs, and the account that fits them: one job home, one in doubt whose task was accepted."""
    db, outputs = tmp_path / "night.db", tmp_path / "out"
    outputs.mkdir()
    data = mp4("task_a", SECONDS)
    file = outputs / "a-1.mp4"
    file.write_bytes(data)
    (outputs / "a-1.mp4.json").write_text("{}")
    stored = e.Stored(Output(str(file), hashlib.sha256(data).hexdigest(), len(data)))
    home = (*path_to(State.DOWNLOADING, "task_a"), stored)
    make_ledger(db, [(spec("a"), home), (spec("b"), path_to(State.UNCONFIRMED))], output_dir=str(outputs))
    tasks = [{"id": f"task_{name}", "label": f"{name}-1", "credits": 630, "refunded": False} for name in ("a", "b")]
    counts = {"posts": 2, "polls": 1, "downloads": 1, "throttled": 0, "charged": 1260, "refunded": 0}
    return db, outputs, counts | {"tasks": tasks}


def test_an_account_that_fits(night: tuple[Path, Path, dict[str, Any]]) -> None:
    assert check(*night).wrong == []


def twice(db: Path, outputs: Path, account: dict[str, Any]) -> None:
    account["tasks"].append(account["tasks"][0] | {"id": "task_c"})


def not_refunded(db: Path, outputs: Path, account: dict[str, Any]) -> None:
    account["refunded"] = 630


def unknown(db: Path, outputs: Path, account: dict[str, Any]) -> None:
    del account["tasks"][0]


def torn(db: Path, outputs: Path, account: dict[str, Any]) -> None:
    (outputs / "a-1.mp4").write_bytes(mp4("task_a", SECONDS)[:-1])


def left(db: Path, outputs: Path, account: dict[str, Any]) -> None:
    (outputs / "a-1.mp4.part").write_bytes(b"x")


def missing(db: Path, outputs: Path, account: dict[str, Any]) -> None:
    (outputs / "a-1.mp4.json").unlink()


def one_credit(db: Path, outputs: Path, account: dict[str, Any]) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("UPDATE attempt SET credits = 629 WHERE task_id = 'task_a'")
        connection.commit()


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (twice, "paid twice"),
        (not_refunded, "money"),
        (unknown, "accepted"),
        (torn, "file"),
        (left, "nobody's"),
        (missing, "missing"),
        (one_credit, "money"),
    ],
)
def test_an_account_that_does_not(
    night: tuple[Path, Path, dict[str, Any]], spoil: Callable[[Path, Path, dict[str, Any]], None], word: str
) -> None:
    spoil(*night)

    assert any(word in told for told in check(*night).wrong)
