"""Target 9: bringing home what is finished: hash, check and fsync, against two good downloaders that do less."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import ledgers, manifests
from .harness import Check, Context, Double, Failed, Result, Run, Unavailable, alternate, measure, median, ratio
from .peers import runners

AT_ONCE = 12
"""Downloads at once: batchrunner's own number, and each peer's best of 4, 12 and 32 differs from it by little."""

SIZE = 5_000_000


def run(context: Context) -> Result:
    files = context.pick(1_000, 60)
    folder = context.room("target09")
    manifest = manifests.write(folder / "jobs.yaml", files + 1, in_flight=100)
    db = folder / "ledger.db"
    with Double.started(file_bytes=SIZE) as double:
        ledgers.recorded(context, double, manifest, db)
        shutil.rmtree(folder / "outputs")
        with ledgers.opened(db) as connection:
            night = ledgers.Night(connection)
            night.running("1", first_task=1)
            night.downloading("1", double.url)
        room = folder / "room"
        urls = [f"{double.url}/media/tasks/task_{number:026d}/0.mp4" for number in range(1, files + 1)]
        (folder / "aria2.txt").write_text("".join(f"{url}\n  out={n}.mp4\n" for n, url in enumerate(urls)))
        (folder / "curl.txt").write_text("".join(f'url = "{url}"\noutput = "{n}.mp4"\n' for n, url in enumerate(urls)))
        result = Result("9", f"{files:,} downloads of {SIZE / 1e6:.0f} MB, {AT_ONCE} at once")

        def fetch(command: list[str], env: dict[str, str]) -> Run:
            found = measure(command, room, env, double=double)
            size = sum(path.stat().st_size for path in room.rglob("*.mp4"))
            shutil.rmtree(room)
            if size < files * SIZE:
                raise Failed(f"{size:,} bytes came of {files * SIZE:,}")
            return found

        def clean() -> None:
            shutil.rmtree(room, ignore_errors=True)
            room.mkdir()
            os.sync()  # what the last one left in memory is not this one's work

        def ours(_: int) -> Run:
            clean()
            for path in folder.glob("ledger.db*"):
                shutil.copy(path, room)
            with ledgers.opened(room / "ledger.db") as connection:
                connection.execute("UPDATE batch SET output_dir = ?", (str(room / "outputs"),))
            return fetch(context.batchrunner("resume", "--quiet", "--db", room / "ledger.db"), context.env(double))

        def theirs(command: list[str]) -> Run:
            clean()
            return fetch(command, context.peer_env())

        contenders = {"batchrunner": ours}
        for name, command in peers(folder, result).items():
            contenders[name] = lambda _, c=command: theirs(c)  # type: ignore[misc]
        runs = alternate(contenders, context.rounds)
    result.table = [("contender", "MB/s", "CPU s", "peak MB", "batchrunner is x", "double CPU")]
    mine = runs["batchrunner"]
    for name, found in runs.items():
        result.table.append(
            (
                name,
                f"{files * SIZE / 1e6 / median(found, 'wall'):,.0f}",
                f"{median(found, 'cpu'):.1f}",
                f"{median(found, 'rss'):.0f}",
                f"{ratio(mine, found, 'wall'):.2f}",
                f"{max(r.told['cpu'] / r.wall for r in found):.0%}",
            )
        )
    others = [ratio(mine, found, "wall") for name, found in runs.items() if name != "batchrunner"]
    if others:
        result.at_least("against the better of aria2c and curl", min(others), 1.0, " x")
    result.notes.append(
        "batchrunner: from the ledger, a SHA-256, a check of the MP4's structure, fsync of file and folder, a commit a "
        "file, a sidecar. aria2c and curl: neither hash nor sync; their files are still in memory when they end."
    )
    return result


def peers(folder: Path, result: Result) -> dict[str, list[str]]:
    """The downloaders that are installed, each with its quickest settings."""
    aria2 = ["-i", str(folder / "aria2.txt"), "-j", str(AT_ONCE), "-x1", "-s1", "--file-allocation=none", "--quiet"]
    curl = [
        "--parallel",
        "--parallel-max",
        str(AT_ONCE),
        "--silent",
        "--show-error",
        "--config",
        str(folder / "curl.txt"),
    ]
    found = {}
    for name, package, arguments in (("aria2c", "aria2", aria2), ("curl", "curl", curl)):
        try:
            found[f"{name} --parallel" if name == "curl" else name] = [runners.tool(name, package), *arguments]
        except Unavailable as reason:
            result.checks.append(Check(f"against {name}", f"not measured: {reason}"))
    return found
