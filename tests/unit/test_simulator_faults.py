"""The notation of faults, and the seeded dice."""

from __future__ import annotations

import math
import statistics

import pytest

from batchrunner.simulator import FAULTS, Fault, SimulatorSettings, parse_fault, parse_faults
from batchrunner.simulator.faults import FaultPlan, uniform


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("drop_after=0.02", Fault("drop_after", 0.02)),
        ("drop-after=1", Fault("drop_after", 1.0)),
        ("moderate=next:3", Fault("moderate", times=3)),
        ("stall", Fault("stall", 1.0)),
        ("slow=0.1:2.5", Fault("slow", 0.1, value=2.5)),
        ("throttle=next:2:7", Fault("throttle", times=2, value=7)),
        (" fail = 0 ", Fault("fail")),
    ],
)
def test_notation(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modrate=1", "did you mean moderate?"),
        ("xyzzy", "unknown fault 'xyzzy'; known: fail, moderate"),
        ("fail=often", "write fail=PROBABILITY or fail=next:N, with :VALUE \\(error code\\)"),
        ("fail=", "write fail="),
        ("stall=next", "write stall=PROBABILITY or stall=next:N$"),
        ("stall=next:x", "write stall="),
        ("slow=1:2:3", "write slow="),
        ("fail=1.5", "between 0 and 1, not 1.5"),
        ("fail=nan", "between 0 and 1"),
        ("fail=next:-1", "whole number"),
        ("stall=1:3", "takes no value"),
        ("slow=1:-1", "no usable seconds"),
        ("slow=1:nan", "no usable seconds"),
        ("poll500=1:42", "no HTTP status"),
    ],
)
def test_nonsense_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_fault(text)


def test_several_in_one_text() -> None:
    assert parse_faults(["stall=next:1, slow=0.5", "fail"]) == (
        Fault("stall", times=1),
        Fault("slow", 0.5),
        Fault("fail", 1.0),
    )
    assert parse_faults([""]) == ()


def test_a_fault_prints_as_it_is_written() -> None:
    for text in ("drop_after=0.02", "moderate=next:3", "slow=0.1:2.5"):
        assert str(parse_fault(text)) == text


def test_every_fault_says_what_it_does() -> None:
    for kind in FAULTS.values():
        assert kind.text
        assert bool(kind.unit) == (kind.value is not None)


def test_uniform_is_pure_and_uniform() -> None:
    draws = [uniform(1, "x", i) for i in range(20_000)]
    assert draws == [uniform(1, "x", i) for i in range(20_000)]
    assert draws[:100] != [uniform(2, "x", i) for i in range(100)]
    assert all(0 < draw < 1 for draw in draws)
    assert abs(statistics.fmean(draws) - 0.5) < 0.01
    assert abs(statistics.pstdev(draws) - math.sqrt(1 / 12)) < 0.01


def test_a_probability_is_met_and_repeats_in_any_order() -> None:
    one, two = (FaultPlan(7, [Fault("fail", 0.1)]) for _ in range(2))
    forwards = {n for n in range(5_000) if one.fires("fail", n)}
    backwards = {n for n in reversed(range(5_000)) if two.fires("fail", n)}
    assert forwards == backwards
    assert 400 < len(forwards) < 600
    assert forwards != {n for n in range(5_000) if FaultPlan(8, [Fault("fail", 0.1)]).fires("fail", n)}


def test_next_n_comes_first_and_then_the_probability() -> None:
    plan = FaultPlan(0, parse_faults(["fail=next:2", "fail=0", "stall=1"]))
    assert [plan.fires("fail", n) for n in range(4)] == [True, True, False, False]
    assert plan.fires("stall", 1)
    assert not plan.fires("moderate", 1)
    assert plan.describe() == [
        {"name": "fail", "chance": 0.0, "next": 0, "value": 80001.0, "fired": 2},
        {"name": "stall", "chance": 1.0, "next": 0, "value": 0.0, "fired": 1},
    ]


def test_only_the_first_that_fires_is_used_up() -> None:
    plan = FaultPlan(0, parse_faults(["fail=next:1", "moderate=next:1"]))
    assert plan.first(("moderate", "fail"), 1) == "moderate"
    assert plan.first(("moderate", "fail"), 2) == "fail"
    assert plan.first(("moderate", "fail"), 3) is None
    plan.replace(())
    assert plan.first(("moderate", "fail"), 4) is None
    assert plan.value("slow") == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"median_seconds": -1},
        {"sigma": math.inf},
        {"requests_per_minute": 0},
        {"in_flight": 0},
        {"expired_status": 200},
        {"clips": "big"},
        {"balance": -5},
    ],
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulatorSettings(**wrong)  # type: ignore[arg-type]


def test_keys_are_not_in_the_repr() -> None:
    assert "rk_secret" not in repr(SimulatorSettings(keys=frozenset({"rk_secret"})))
