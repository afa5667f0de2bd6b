"""Where outputs go: a folder of this machine, or a prefix in object storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""The package that fsspec needs for a scheme, as its registry has it (fsspec/registry.py)."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Remote:
    """A prefix in object storage, or an object below it.

    Attributes:
        url: such as `s3://bucket/prefix`, without a slash at its end and without anything secret.
    """

    url: str

    def __truediv__(self, name: object) -> Remote:
        return Remote(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def path(self) -> str:
        """Bucket and key, `/` between them."""
        return self.url.partition("://")[2]

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


Place = Path | Remote


def is_url(text: str) -> bool:
    """Whether a text names object storage. No absolute path does: a path has no empty parts."""
    return _URL.match(text) is not None


def place_of(text: str) -> Place:
    """What the ledger's text for a place means."""
    return Remote(text) if is_url(text) else Path(text)
