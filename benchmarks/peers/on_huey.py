# mypy: disable-error-code="import-not-found, untyped-decorator"
"""A task queue on SQLite: Huey, a task a job, its consumer's threads do POST, poll and download.

Its queue is durable, its tasks are not: one that is interrupted is gone, or starts over and pays again.

    python -m benchmarks.peers.on_huey MANIFEST FOLDER WORKERS
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

from huey import SqliteHuey
from huey.consumer import Consumer

from . import blocking
from .naive import read


def main(manifest: Path, folder: Path, workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    huey = SqliteHuey("jobs", filename=str(folder / "jobs.db"), fsync=True)
    shots = read(manifest)
    left = len(shots)
    lock, over = threading.Lock(), threading.Event()

    @huey.task()
    def generate(request: dict[str, Any], target: str) -> bool:
        nonlocal left
        blocking.fetch(blocking.wait_for(blocking.submit(request)), target)
        with lock:
            left -= 1
            if not left:
                over.set()
        return True

    for shot, request in shots:
        generate(request, str(folder / f"{shot}.mp4"))
    logging.getLogger("huey").setLevel(logging.WARNING)
    consumer = Consumer(
        huey, workers=workers, periodic=False, initial_delay=0.01, backoff=1.0, check_worker_health=False
    )
    consumer.start()
    over.wait(600)
    consumer.stop(graceful=True)
    if left:
        sys.exit(f"{left} jobs are left")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
