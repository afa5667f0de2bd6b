"""Fixtures that several rooms of the tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from batchrunner.ledger.address import Address
from tests.double import Double
from tests.postgres.server import Postgres, binaries, running

# A test never asserts a wall-clock time, and neither does the tool that makes its inputs.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, and of these the longest, so that the end does not wait for one of them."""

    def patience(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return -marker.args[0] if marker is not None else 0.0

    long = sorted((item for item in items if item.get_closest_marker("slow")), key=patience)
    short = [item for item in items if not item.get_closest_marker("slow")]
    items[:] = _dealt(long, short, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _dealt(long: list[pytest.Item], short: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """In an order in which each worker begins with its share of the long ones.

    `--dist worksteal` gives each a block of the list, all of the same size but for one.
    """
    dealt: list[pytest.Item] = []
    rest = iter(short)
    left = len(long) + len(short)
    for worker in range(workers):
        size = left // (workers - worker)
        mine = long[worker::workers]
        dealt += [*mine, *islice(rest, size - len(mine))]
        left -= size
    return [*dealt, *rest]


@pytest.fixture(scope="session")
def double() -> Iterator[Double]:
    """A provider double in a process of its own, one for each worker."""
    with Double.start() as running:
        yield running


# --- Both stores -----------------------------------------------------------------------------------------

STORES = ("sqlite", "postgres")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `path` asks it of a ledger in a file, and of one in PostgreSQL. One of them only where it is
    marked so."""
    if "path" in metafunc.fixturenames and metafunc.module.__dict__.get("BOTH_STORES"):
        only = metafunc.definition.get_closest_marker("store")
        metafunc.parametrize("path", only.args[0] if only else STORES, indirect=True)


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """Where a ledger will be."""
    if request.param == "sqlite":
        return tmp_path / "l.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.ledger()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own, one for each worker that needs it.

    `tests/needs.sh postgresql` (a step of `make test`) installs it where it can. Where there is none the tests skip
    and say so; with BATCHRUNNER_REQUIRE_POSTGRES=1 that is a failure.
    """
    if binaries() is None:
        say = pytest.fail if os.environ.get("BATCHRUNNER_REQUIRE_POSTGRES") == "1" else pytest.skip
        say("no PostgreSQL server here: apt-get install --no-install-recommends postgresql")
    with running() as server:
        yield server


@pytest.fixture(autouse=True, scope="session")
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a run keeps beside a ledger that is elsewhere stays out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
