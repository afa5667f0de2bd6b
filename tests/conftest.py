"""Fixtures that several rooms of the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.double import Double


@pytest.fixture(scope="session")
def double() -> Iterator[Double]:
    """A provider double in a process of its own, one for each worker."""
    with Double.start() as running:
        yield running
