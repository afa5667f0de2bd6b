"""How each peer is started, and the environment that it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from ..harness import ROOT, Context, Double, Run, Unavailable, measure

ENVIRONMENT = ROOT / ".venv-peers"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python() -> str:
    """The interpreter of the peers' environment, which is made if it is not there."""
    stamp, wanted = ENVIRONMENT / ".installed", REQUIREMENTS.read_text()
    found = ENVIRONMENT / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return str(found)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True, capture_output=True)
        install = [
            str(found),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            str(REQUIREMENTS),
        ]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=600)
    except (subprocess.SubprocessError, OSError) as error:
        last = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1:]
        raise Unavailable(f"the peers' environment can't be made ({' '.join(last)})") from None
    stamp.write_text(wanted)
    return str(found)


def tool(name: str, package: str) -> str:
    """A program of the system."""
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is not installed: apt-get install {package}")
    return found


def module(
    context: Context, double: Double, name: str, interpreter: str, manifest: Path, room: Path, *rest: object
) -> Run:
    """A peer that is a Python module of this package."""
    shutil.rmtree(room, ignore_errors=True)
    command = [interpreter, "-m", f"benchmarks.peers.{name}", str(manifest), str(room), *map(str, rest)]
    return measure(command, context.folder, context.peer_env(double), double=double)


def parallel_is_there() -> str:
    """GNU parallel, with curl beside it."""
    tool("curl", "curl")
    return tool("parallel", "parallel")


def parallel(context: Context, double: Double, manifest: Path, room: Path, at_once: int) -> Run:
    """GNU parallel and curl: three processes a job at least. It is spared the YAML: it gets a list."""
    from .naive import read  # not at the top: a measured process is at least as large as the harness that starts it

    program = parallel_is_there()
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    shots = room / "shots.tsv"
    shots.write_text("".join(f"{shot}\t{request['prompt']}\n" for shot, request in read(manifest)))
    script = Path(__file__).with_name("with_curl.sh")
    command = [program, "-j", str(at_once), "--colsep", "\t", "-a", str(shots), "sh", str(script), str(room)]
    return measure([*command, "{1}", "{2}"], context.folder, context.peer_env(double), double=double)
