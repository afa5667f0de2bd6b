"""Fixtures that several rooms of the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.double import Double

# A test never asserts a wall-clock time, and neither does the tool that makes its inputs.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that the end does not wait for one of them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def double() -> Iterator[Double]:
    """A provider double in a process of its own, one for each worker."""
    with Double.start() as running:
        yield running
