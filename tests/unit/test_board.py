"""The board on a terminal: calm and whole at 10,000 jobs, at 80 columns and at 200."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from batchrunner.cli.board import SHOWN, BoardDisplay, clock_text, figure_lines
from batchrunner.core.job import State
from batchrunner.engine.ports import Tally
from tests.unit.test_display import HOSTILE, HOSTILE_JOB, JOB, clean, error

FACTS: dict[str, Any] = {
    "in_flight": 432,
    "in_flight_limit": 500,
    "submits_per_minute": 118.4,
    "submits_per_minute_limit": 300.0,
    "per_minute": 104.2,
    "hold": 0.0,
    "eta_seconds": 3300,
    "eta_range": [2900, 4200],
    "paused_by": None,
    "credits": {"spent": 2_009_700, "reserved": 272_160, "at_risk": 1260},
}
MANY = Tally({State.PENDING: 5800, State.RUNNING: 420, State.DOWNLOADING: 12, State.SUCCEEDED: 3744, State.FAILED: 24})


@pytest.fixture
def board() -> BoardDisplay:
    found = BoardDisplay()
    found._names, found._tally = "night", MANY
    found.db = Path("batchrunner.db").absolute()
    return found


def drawn(board: BoardDisplay, columns: int = 80) -> list[str]:
    """The board's lines as they stand on a terminal of that width."""
    file = io.StringIO()
    console = Console(
        file=file, width=columns, force_terminal=True, no_color=True, highlight=False, legacy_windows=False
    )
    console.print(board._picture())
    return file.getvalue().replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()


@pytest.mark.parametrize("columns", [80, 200])
def test_ten_thousand_jobs_are_a_few_lines(board: BoardDisplay, columns: int) -> None:
    board.event("progress", **FACTS)
    for n in range(500):
        board.event("stored", JOB)
        board.event("taskfailed", JOB, state="failed", error=error(f"broke {n}"))
    lines = drawn(board, columns)
    text = "\n".join(lines)
    assert len(lines) <= 7 + SHOWN
    assert max(map(len, lines)) <= columns
    for words in (
        "night",
        "3,768/10,000  37 %",
        "5,800\u00a0pending",
        "24\u00a0failed",
        "in flight 432 of 500   submits 118 of 300 a minute   finished 104.2 a minute",
        "2,009,700 credits ($2,009.70), 272,160 reserved, 1,260 at risk",
        "about 55 min left (48 min to 70 min)",
        "broke 499",
    ):
        assert words in text, words
    assert text.count("broke") == SHOWN


def test_why_nothing_is_submitted_is_said(board: BoardDisplay) -> None:
    board.event("progress", **{**FACTS, "paused_by": "ada", "hold": 12.0})
    board.event("stopping", reason="deadline", message="the time is up")
    text = "\n".join(drawn(board, 120))
    assert "paused by ada: `batchrunner continue` goes on" in text
    assert "held for 12 s" in text
    assert "stopping (deadline: the time is up)" in text


def test_before_the_first_heartbeat_there_are_counts_only(board: BoardDisplay) -> None:
    assert len(drawn(board)) == 2
    board._tally = Tally()
    assert drawn(board)[1] == "no jobs"


def test_hostile_text_stays_text(board: BoardDisplay) -> None:
    board.event("progress", **{**FACTS, "paused_by": HOSTILE})
    board.event("stopping", reason="disk", message=HOSTILE)
    board.event("taskfailed", HOSTILE_JOB, state="failed", error=error(HOSTILE, HOSTILE, HOSTILE))
    lines = drawn(board, 300)
    assert any("\\x1b[2J" in line for line in lines)
    assert all(clean(line) for line in lines)


def test_it_comes_and_goes_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with BoardDisplay() as board:
        board.begin(["night"], MANY)
        board.event("ambiguous", JOB, state="unconfirmed", error=error())
        board.close()
    assert "UNCONFIRMED" in capsys.readouterr().out


def test_figures() -> None:
    assert figure_lines({}) == []
    quiet = figure_lines({**FACTS, "per_minute": 0.0, "eta_seconds": None, "eta_range": None})
    assert quiet[0].endswith("a minute")
    assert "finished" not in quiet[0]
    assert quiet[-1] == ""
    assert clock_text(3 * 3600 + 62.9) == "3:01:02"
