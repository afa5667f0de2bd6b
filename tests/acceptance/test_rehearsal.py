"""A rehearsal in the simulator never gets in the way of the paid run, nor the other way round: the real CLI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = """\
version: 1
batch: first
defaults: {model: kling-3-0-turbo, duration: 3}
shots: [{id: dog, prompt: a dog}]
"""


def batchrunner(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, without a key unless one is given."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("REAPI_", "BATCHRUNNER_"))}
    return subprocess.run(
        [sys.executable, "-m", "batchrunner", *arguments],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """`batchrunner simulate` in a process of its own, as the service that is paid."""
    command = [sys.executable, "-m", "batchrunner", "simulate", "--median", "0.1", "--clips", "tiny"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = ""
        while "http://" not in url:
            line = process.stdout.readline()
            assert line, "the simulator ended before it said where it is"
            url = line
        yield "http://" + url.split("http://")[1].split()[0]
        process.terminate()


def sidecar(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.with_name(path.name + ".json").read_text())
    return found


def test_a_paid_run_moves_rehearsed_clips_aside_and_a_rehearsal_gives_way_to_paid_ones(
    tmp_path: Path, server: str
) -> None:
    (tmp_path / "first.yaml").write_text(MANIFEST)
    clip = tmp_path / "outputs/first/dog-1.mp4"
    paid = {"REAPI_BASE_URL": server, "REAPI_API_KEY": "rk_paid"}

    assert batchrunner(tmp_path, "run", "first.yaml", "--simulate").returncode == 0
    assert sidecar(clip)["simulated"] is True
    rehearsed = clip.read_bytes()

    ran = batchrunner(tmp_path, "run", "first.yaml", **paid)
    assert ran.returncode == 0, ran.stderr
    assert "simulated" not in sidecar(clip)
    aside = tmp_path / "outputs/first/simulated/dog-1.mp4"
    assert aside.read_bytes() == rehearsed
    assert sidecar(aside)["simulated"] is True
    bought = clip.read_bytes()

    for name in ("batchrunner.sim.db", "batchrunner.sim.db.account"):
        (tmp_path / name).unlink()
    assert batchrunner(tmp_path, "run", "first.yaml", "--simulate").returncode == 0
    assert clip.read_bytes() == bought
    assert sidecar(clip.with_name("dog-1.simulated.mp4"))["simulated"] is True


def test_a_file_that_nobody_knows_is_refused_before_anything_is_paid_for(tmp_path: Path, server: str) -> None:
    (tmp_path / "first.yaml").write_text(MANIFEST)
    clip = tmp_path / "outputs/first/dog-1.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"somebody's own")
    ran = batchrunner(tmp_path, "run", "first.yaml", REAPI_BASE_URL=server, REAPI_API_KEY="rk_paid")
    assert ran.returncode == 2
    assert "dog-1.mp4 exists already" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert clip.read_bytes() == b"somebody's own"
    listed = json.loads(batchrunner(tmp_path, "jobs", "--json").stdout)
    assert [(j["state"], j["attempts"]) for j in listed] == [("pending", 0)]


def test_the_ledger_of_a_rehearsal_is_refused_for_a_paid_run(tmp_path: Path, server: str) -> None:
    (tmp_path / "first.yaml").write_text(MANIFEST)
    assert batchrunner(tmp_path, "run", "first.yaml", "--simulate").returncode == 0
    (tmp_path / "second.yaml").write_text(MANIFEST.replace("a dog", "a cat").replace("id: dog", "id: cat"))
    ran = batchrunner(
        tmp_path, "run", "second.yaml", "--db", "batchrunner.sim.db", REAPI_BASE_URL=server, REAPI_API_KEY="rk_paid"
    )
    assert ran.returncode == 2
    assert "this ledger belongs to the simulator" in ran.stderr


def test_an_install_outside_the_checkout_has_its_schemas_and_does_the_main_job(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    work = tmp_path / "work"
    work.mkdir()
    (work / "first.yaml").write_text(MANIFEST)
    where = batchrunner(work, "schema", "kling-3-0-turbo", PYTHONPATH=str(installed))
    assert json.loads(where.stdout)["properties"]["model"]["const"] == "kling-3-0-turbo"
    found = subprocess.run(
        [sys.executable, "-c", "import batchrunner.catalogue as c; print(c.schema_folder())"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(installed / "batchrunner" / "schemas")
    ran = batchrunner(work, "run", "first.yaml", "--simulate", PYTHONPATH=str(installed))
    assert ran.returncode == 0, ran.stderr
    assert (work / "outputs/first/dog-1.mp4").stat().st_size > 1000
