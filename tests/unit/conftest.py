"""Fixtures that several modules of unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_support import MANIFEST


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """`night.yaml` (the module's own TEXT, where it has one) in a current folder of its own, without key or ledger."""
    monkeypatch.chdir(tmp_path)
    for name in ("BATCHRUNNER_DB", "REAPI_API_KEY", "REAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "night.yaml"
    path.write_text(getattr(request.module, "TEXT", MANIFEST))
    return path
