"""A paid run that dies while it moves a rehearsal's clips aside: the next one goes on, and asks nobody to tidy up."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from batchrunner.engine.files import sidecar_path
from batchrunner.engine.ground import Site, clear
from batchrunner.engine.stores import ASIDE, FolderStore


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("death", [1, 2])
def test_a_run_that_dies_between_clip_and_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: int) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"rehearsed")
    facts = {"task_id": "task_1", "simulated": True, "sha256": hashlib.sha256(b"rehearsed").hexdigest()}
    sidecar_path(clip).write_text(json.dumps(facts))
    rename, left = os.rename, death

    def dying(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Died
        rename(source, target)

    sites = [Site(1, FolderStore(tmp_path), clip.name, ())]
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dying)
        with pytest.raises(Died):
            clear(sites, simulate=False, rename=lambda *_: None)

    assert clear(sites, simulate=False, rename=lambda *_: None) == []

    aside = tmp_path / ASIDE
    assert sorted(p.name for p in tmp_path.iterdir()) == [ASIDE]
    assert sorted(p.name for p in aside.iterdir()) == ["clip.mp4", "clip.mp4.json"]
    assert (aside / "clip.mp4").read_bytes() == b"rehearsed"
