"""One server for all tests of this room; the bucket is empty at the start of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.objects.bucket import Bucket, empty, serving


@pytest.fixture(scope="package")
def _server() -> Iterator[Bucket]:
    with serving() as bucket:
        yield bucket


@pytest.fixture
def bucket(_server: Bucket) -> Bucket:
    empty(_server)
    return _server
