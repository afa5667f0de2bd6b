"""When to poll: the formula, its bounds, and how well it finds results."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.polling import (
    EAGER,
    ENOUGH,
    FILLED,
    KEPT,
    MIN_SIGMA,
    Latencies,
    Lognormal,
    PollPolicy,
    Price,
    fit,
    interval,
)

TYPICAL = Lognormal(math.log(60.0), 0.5)
POLICY = PollPolicy()


def _survival(known: Lognormal, t: float) -> float:
    return 1.0 - NormalDist(known.mu, known.sigma).cdf(math.log(t))


@pytest.mark.parametrize("known", [TYPICAL, Lognormal(math.log(5.0), 0.2), Lognormal(math.log(300.0), 1.0)])
@pytest.mark.parametrize("quantile", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_hazard_is_the_slope_of_survival(known: Lognormal, quantile: float) -> None:
    """h(t) = -d ln S(t) / dt, by a central difference."""
    t = known.quantile(quantile)
    step = t * 1e-4
    slope = -(math.log(_survival(known, t + step)) - math.log(_survival(known, t - step))) / (2 * step)
    assert known.hazard(t) == pytest.approx(slope, rel=1e-3)


def test_hazard_far_in_the_tail_is_finite_and_continuous() -> None:
    beyond = math.exp(TYPICAL.mu + 7.0 * TYPICAL.sigma)
    for z in (6.9, 7.0, 7.1, 9.0, 40.0, 100.0):
        t = math.exp(TYPICAL.mu + z * TYPICAL.sigma)
        assert TYPICAL.hazard(t) == pytest.approx(z / (TYPICAL.sigma * t), rel=0.03)
    assert TYPICAL.hazard(beyond * 1e6) > 0.0
    assert TYPICAL.hazard(0.0) == TYPICAL.hazard(-1.0) == 0.0


def test_quantile() -> None:
    assert TYPICAL.quantile(0.5) == pytest.approx(60.0)
    assert TYPICAL.quantile(NormalDist().cdf(1.0)) == pytest.approx(60.0 * math.exp(0.5))


def test_fit_needs_enough_and_finds_the_parameters() -> None:
    draw = random.Random(1)
    samples = [draw.lognormvariate(math.log(60.0), 0.5) for _ in range(2000)]
    assert fit(samples[: ENOUGH - 1]) is None
    assert fit(samples[:ENOUGH]) is not None
    found = fit(samples)
    assert found is not None
    assert math.exp(found.mu) == pytest.approx(60.0, rel=0.05)
    assert found.sigma == pytest.approx(0.5, rel=0.05)


def test_a_fit_is_the_mean_and_the_sample_deviation_of_the_logarithms() -> None:
    samples = [0.02, 0.5, 0.9, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    logs = [math.log(s) for s in samples]
    found = fit(samples)
    assert found is not None
    assert found.mu == pytest.approx(statistics.fmean(logs))
    assert found.sigma == pytest.approx(statistics.stdev(logs))


def test_hazard_of_what_takes_less_than_a_second() -> None:
    quick = Lognormal(math.log(0.5), 0.5)
    assert quick.hazard(0.5) == pytest.approx(math.sqrt(2.0 / math.pi) / (0.5 * 0.5))


def test_a_fit_is_never_certain() -> None:
    same = fit([60.0] * 50)
    assert same is not None
    assert same.mu == pytest.approx(math.log(60.0))
    assert same.sigma == MIN_SIGMA
    assert fit([0.0] * 10) is not None


@given(
    st.floats(0.0, 1e7),
    st.floats(-3.0, 9.0),
    st.floats(MIN_SIGMA, 3.0),
    st.floats(0.01, 5.0),
    st.booleans(),
)
def test_interval_stays_in_its_bounds(age: float, mu: float, sigma: float, price: float, known: bool) -> None:
    policy = PollPolicy(price=price)
    wait = interval(policy, Lognormal(mu, sigma) if known else None, age)
    assert policy.shortest <= wait <= policy.longest


@pytest.mark.parametrize("age", [10.0, 30.0, 60.0, 90.0, 150.0])
def test_interval_solves_its_equation(age: float) -> None:
    """d^2 h(t + d / 2) = 2 c, found in steps of a tenth."""
    wait = interval(POLICY, TYPICAL, age)
    assert POLICY.shortest < wait < POLICY.longest
    assert wait**2 * TYPICAL.hazard(age + wait / 2) >= 2 * POLICY.price
    assert (wait / 1.1) ** 2 * TYPICAL.hazard(age + wait / 2.2) < 2 * POLICY.price


@given(st.floats(0, 1e5), st.floats(-2, 8), st.floats(MIN_SIGMA, 3), st.floats(1e-4, 1e4))
def test_the_interval_is_the_first_step_that_is_worth_a_poll(age: float, mu: float, sigma: float, price: float) -> None:
    """Step by step, as it is meant; by halving, it takes a fifth of the looks."""
    known, policy = Lognormal(mu, sigma), PollPolicy(price=price)
    wait = policy.shortest
    while wait < policy.longest and wait * wait * known.hazard(age + wait / 2.0) < 2.0 * price:
        wait *= 1.1
    assert interval(policy, known, age) == min(policy.longest, wait)


def test_a_cheaper_poll_is_made_sooner() -> None:
    waits = [interval(PollPolicy(price=c), TYPICAL, 60.0) for c in (0.05, 0.1, 0.5, 2.0)]
    assert waits == sorted(waits)
    assert len(set(waits)) == 4


def test_backoff_until_enough_is_known() -> None:
    age, gaps = 0.0, []
    while age < 300.0:
        wait = interval(POLICY, None, age)
        gaps.append(wait)
        age += wait
    assert gaps[0] == POLICY.shortest
    assert gaps[-1] == POLICY.longest
    middle = [g for g in gaps if POLICY.shortest < g < POLICY.longest]
    assert all(b / a == pytest.approx(POLICY.growth) for a, b in itertools.pairwise(middle))


def test_latencies_by_length_then_by_model() -> None:
    known = Latencies()
    for n in range(ENOUGH):
        known.add("kling", 5, 30.0 + n)
    for n in range(ENOUGH):
        known.add("kling", 15, 300.0 + n)
    short, long, model = known.of("kling", 5), known.of("kling", 15), known.of("kling", 8)
    assert short is not None
    assert long is not None
    assert model is not None
    assert short.mu < model.mu < long.mu
    assert known.of("kling", None) == model
    assert known.of("veo", 5) is None


def test_latencies_without_a_length_count_once_and_are_learned_at_once() -> None:
    known = Latencies()
    for _ in range(ENOUGH - 1):
        known.add("m", None, 50.0)
    assert known.of("m", None) is None
    known.add("m", None, 50.0)
    assert known.of("m", None) is not None


def test_latencies_follow_drift() -> None:
    known = Latencies()
    for _ in range(KEPT):
        known.add("m", 5, 10.0)
    for _ in range(KEPT):
        known.add("m", 5, 1000.0)
    found = known.of("m", 5)
    assert found is not None
    assert math.exp(found.mu) == pytest.approx(1000.0)


def _watch(took: float, known: Lognormal | None, policy: PollPolicy) -> tuple[int, float]:
    """(polls, seconds of delay) for a task that takes `took` seconds, on virtual time."""
    age, polls = 0.0, 0
    while True:
        age += interval(policy, known, age)
        polls += 1
        if age >= took:
            return polls, age - took


def test_how_well_it_polls(record_property: Callable[[str, object], None]) -> None:
    """PERFORMANCE.md, "When to poll": lognormal(60 s, 0.5), c = 0.5; <= 7.5 polls a task and <= 4 s of mean delay."""
    draw = random.Random(20261122)
    latencies = Latencies()
    learning: list[tuple[int, float]] = []
    learned: list[tuple[int, float]] = []
    for n in range(4000):
        took = draw.lognormvariate(math.log(60.0), 0.5)
        seen = _watch(took, latencies.of("m", 5), POLICY)
        (learning if n < KEPT else learned).append(seen)
        latencies.add("m", 5, took + seen[1])  # what a runner can measure: when it saw the end
    polls = statistics.fmean(p for p, _ in learned)
    delay = statistics.fmean(d for _, d in learned)
    p95 = statistics.quantiles((d for _, d in learned), n=20)[-1]
    print(f"\npolls a task {polls:.2f}, mean delay {delay:.2f} s, p95 {p95:.2f} s (after {KEPT} samples)")
    record_property("polls", polls)
    record_property("delay", delay)
    assert polls <= 7.5
    assert delay <= 4.0
    assert p95 <= 9.0


def test_a_fit_beats_the_backoff() -> None:
    draw = random.Random(7)
    tasks = [draw.lognormvariate(math.log(60.0), 0.5) for _ in range(2000)]
    fitted = [_watch(t, TYPICAL, POLICY) for t in tasks]
    backed_off = [_watch(t, None, POLICY) for t in tasks]
    assert statistics.fmean(d for _, d in fitted) < 0.5 * statistics.fmean(d for _, d in backed_off)
    assert statistics.fmean(p for p, _ in fitted) < 1.5 * statistics.fmean(p for p, _ in backed_off)


def test_a_model_that_suddenly_takes_longer_is_not_left_alone() -> None:
    polls, delay = _watch(3600.0, TYPICAL, POLICY)
    assert delay <= POLICY.longest
    assert polls >= 3600.0 / POLICY.longest


# --- The price of a poll ---------------------------------------------------------------------------------


def _settled(price: Price, tasks: int, budget: float, *, eager: bool = False) -> float:
    """Plan every task three times over, a task of a minute in the middle of its life; the polls a second asked for."""
    waits = [0.0] * tasks
    shares: list[float | None] = [None] * tasks
    for n in list(range(tasks)) * 3:
        if (share := shares[n]) is not None:
            price.remove(share)
        waits[n] = interval(price.settle(budget, eager=eager), TYPICAL, 60.0)
        shares[n] = price.add(waits[n])
    return sum(1.0 / w for w in waits)


@pytest.mark.parametrize("tasks", [30, 100, 250])
def test_the_price_rises_until_the_budget_is_kept(tasks: int) -> None:
    price = Price(POLICY)
    asked = _settled(price, tasks, budget=10.0)
    assert asked <= 11.5
    assert asked >= 5.0 or price.now == POLICY.price


def test_a_poll_is_cheap_where_slots_are_waited_for_and_the_budget_allows() -> None:
    price = Price(POLICY)
    _settled(price, 10, budget=1000.0)
    assert price.now == POLICY.price
    _settled(price, 10, budget=1000.0, eager=True)
    assert price.now == EAGER


def test_the_longest_interval_calls_for_no_higher_price() -> None:
    """Ten times more tasks than the budget could ever serve, and the price falls back at once when they are gone."""
    price = Price(POLICY)
    shares = []
    for _ in range(10_000):
        price.settle(10.0, eager=False)
        shares.append(price.add(POLICY.longest))
    peak = price.now
    for share in shares:
        price.remove(share)
    assert math.isfinite(peak)
    assert price.settle(10.0, eager=False) == POLICY


def test_a_dear_poll_makes_the_backoff_longer_too() -> None:
    usual, dear = interval(POLICY, None, 20.0), interval(PollPolicy(price=2.0), None, 20.0)
    assert dear == pytest.approx(2.0 * usual)


def test_a_price_is_what_makes_the_demand_meet_the_budget() -> None:
    price = Price(POLICY)
    for _ in range(2):
        price.add(4.0)
    # At the price 1 two polls in 4 s would be sqrt(0.45) times as many: (sum / budget) ** 2.
    assert price.settle(0.01, eager=False).price == pytest.approx((2 * math.sqrt(0.45) / 4.0 / (FILLED * 0.01)) ** 2)


def test_what_was_polled_asks_for_nothing_more() -> None:
    price = Price(POLICY)
    shares = [price.add(wait) for wait in (3.0, 5.0, 7.0)]
    price.remove(shares[0])
    left = sum(shares[1:])
    assert price.settle(0.01, eager=False).price == pytest.approx((left / (FILLED * 0.01)) ** 2)
    for share in shares[1:]:
        price.remove(share)
    assert price.settle(0.01, eager=False) == POLICY


def test_at_the_longest_interval_a_share_is_what_the_usual_price_makes_it() -> None:
    price = Price(POLICY)
    for _ in range(100):
        price.add(2.0)
    assert price.settle(1.0, eager=False).price > POLICY.price
    assert price.add(POLICY.longest) == pytest.approx(math.sqrt(POLICY.price) / POLICY.longest)


def test_the_fit_over_everything_counts_each_sample_once() -> None:
    known = Latencies()
    assert known.every() is None
    for n in range(6):
        known.add("a", 5, 10.0 + n)
        known.add("b", None, 100.0 + n)
    every = known.every()
    assert every == fit([10.0 + n for n in range(6)] + [100.0 + n for n in range(6)])
