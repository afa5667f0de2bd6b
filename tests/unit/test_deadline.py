"""When to stop: what can be done in time, and how far away a time of day is, whatever clocks do that night."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from batchrunner import app
from batchrunner.app import seconds_left as seconds_left_here
from batchrunner.cli.run import _deadline
from batchrunner.core.deadline import SURE, in_time, seconds_left
from batchrunner.core.polling import Lognormal
from batchrunner.engine.clock import Clock
from batchrunner.exits import UsageError
from batchrunner.ledger.store import Ledger
from tests.cli_support import call

MINUTE = Lognormal(mu=4.094, sigma=0.3)  # median 60 s
BERLIN = ZoneInfo("Europe/Berlin")
SIX, TEN = datetime.time(6), datetime.time(22)


def test_in_time_as_long_as_nobody_knows() -> None:
    assert in_time(0.001, None)
    assert not in_time(0.0, None)
    assert not in_time(-5.0, None)


def test_in_time_by_what_is_known() -> None:
    takes = MINUTE.quantile(SURE)
    assert 90.0 < takes < 110.0
    assert in_time(takes + 0.01, MINUTE)
    assert not in_time(takes - 0.01, MINUTE)
    assert not in_time(0.0, Lognormal(-20.0, 0.15))


def left(now: str, until: str, since: str | None = None, fold: int = 0, zone: ZoneInfo = BERLIN) -> float:
    at = datetime.datetime.fromisoformat(now).replace(tzinfo=zone, fold=fold)
    wanted = datetime.time.fromisoformat(until)
    return seconds_left(
        wanted,
        at,
        lambda naive: naive.replace(tzinfo=zone).astimezone(datetime.UTC),
        None if since is None else datetime.time.fromisoformat(since),
    )


@pytest.mark.parametrize(
    ("now", "until", "hours"),
    [
        ("2026-01-10T22:00", "06:00", 8.0),
        ("2026-01-10T05:59", "06:00", 1 / 60),
        ("2026-01-10T06:00", "06:00", 24.0),
        ("2026-01-10T06:00:01", "06:00", 24.0 - 1 / 3600),
        ("2026-12-31T23:00", "00:30", 1.5),
        # On 29 March 2026 the clock goes from 02:00 to 03:00, on 25 October from 03:00 back to 02:00.
        ("2026-03-28T22:00", "06:00", 7.0),
        ("2026-10-24T22:00", "06:00", 9.0),
        ("2026-03-29T01:00", "02:30", 1.5),  # there is no 02:30: it comes as 03:30
        ("2026-10-25T01:00", "02:30", 1.5),  # the first of the two
        ("2026-10-25T06:30", "06:00", 23.5),
    ],
)
def test_seconds_left(now: str, until: str, hours: float) -> None:
    assert left(now, until) == pytest.approx(hours * 3600.0)


def test_between_the_two_that_are_the_same_time_the_second_is_meant() -> None:
    assert left("2026-10-25T02:45", "02:30") == pytest.approx(45 * 60.0)
    assert left("2026-10-25T02:45", "02:30", fold=1) == pytest.approx(23.75 * 3600.0)


@pytest.mark.parametrize(("until", "hours"), [("23:30", 0.5), ("06:00", 7.0), ("22:00", 23.0)])
def test_a_date_that_is_left_out(until: str, hours: float) -> None:
    """On Samoa the 29th of December 2011 was followed by the 31st."""
    assert left("2011-12-29T23:00", until, zone=ZoneInfo("Pacific/Apia")) == hours * 3600.0


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        ("2026-01-10T22:00", 8.0),
        ("2026-01-10T23:30", 6.5),
        ("2026-01-11T05:59", 1 / 60),
        ("2026-01-11T06:00", 0.0),
        ("2026-01-11T09:00", 0.0),
        ("2026-01-11T21:59:59", 0.0),
        ("2026-03-28T23:00", 6.0),
    ],
)
def test_outside_the_hours_nothing_is_left(now: str, hours: float) -> None:
    assert left(now, "06:00", "22:00") == pytest.approx(hours * 3600.0)


def test_hours_within_a_day() -> None:
    assert left("2026-01-10T12:00", "17:00", "09:00") == 5 * 3600.0
    assert left("2026-01-10T08:59", "17:00", "09:00") == 0.0
    assert left("2026-01-10T17:00", "17:00", "09:00") == 0.0
    assert left("2026-01-10T12:00", "17:00", "17:00") == 0.0, "no hours at all"


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in a zone where it is half past twenty-three now."""
    now = datetime.datetime.now(datetime.UTC)
    minutes = (23 * 60 + 30) - (now.hour * 60 + now.minute)
    minutes = (minutes + 720) % 1440 - 720
    sign = "-" if minutes >= 0 else "+"  # POSIX counts west of Greenwich
    monkeypatch.setenv("TZ", f"XXX{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_the_machines_own_zone() -> None:
    assert 6.4 * 3600 < seconds_left_here(SIX) <= 6.5 * 3600
    assert 6.4 * 3600 < seconds_left_here(SIX, TEN) <= 6.5 * 3600
    assert seconds_left_here(TEN, SIX) == 0.0
    assert _deadline(SIX, 60.0) == 60.0
    assert _deadline(None, 60.0) == 60.0
    assert _deadline(None, None) is None
    assert 6.4 * 3600 < (_deadline(SIX, 24 * 3600.0, TEN) or 0.0) <= 6.5 * 3600


@pytest.mark.parametrize("until", [None, TEN])
def test_from_alone_is_a_mistake(until: datetime.time | None) -> None:
    with pytest.raises(UsageError, match="--until at another time"):
        _deadline(until, 60.0, TEN)


@pytest.mark.parametrize("text", ["6 o'clock", "25:00", "06:00+02:00", "", "\x1b[2J"])
def test_what_is_no_time_of_day(text: str) -> None:
    ran = call("resume", "--until", text)
    assert ran.code == 2
    assert "is not a local time; write it like 06:00" in ran.err
    assert "\x1b" not in ran.err


async def test_the_time_goes_on_while_another_runner_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = app.open_ledger
    untils: list[float | None] = []

    async def wait_first(db: Path, clock: Clock, wait: float, looked: Callable[[], bool] | None = None) -> Ledger:
        begin = clock.monotonic()
        while clock.monotonic() == begin:
            await clock.sleep(0.001)
        return await opened(db, clock, wait, looked)

    class Night:
        def __init__(self, options: app.RunOptions, *_: object) -> None:
            untils.append(options.until)

        async def run(self) -> app.RunResult:
            return app.RunResult(0, [], None, "")

    monkeypatch.setattr(app, "open_ledger", wait_first)
    monkeypatch.setattr(app, "Night", Night)
    await app.run_here(app.RunOptions(db=tmp_path / "l.db", until=3600.0), app.Watcher())
    await app.run_here(app.RunOptions(db=tmp_path / "l.db"), app.Watcher())

    assert untils[0] is not None
    assert untils[0] < 3600.0
    assert untils[1] is None
