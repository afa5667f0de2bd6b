"""A night in a ledger, with everything in it that a report can show, and clips beside it.

python -m tests.browser.night FOLDER JOBS      writes FOLDER/batchrunner.db and FOLDER/out
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from batchrunner.core import events as e
from batchrunner.core.job import Job, JobSpec, Output, Problem
from batchrunner.simulator import clips
from tests.support import START, FakeClock, batch, jobs_of, open_ledger, spec

EVENING = START + 6 * 3600
"""Unix seconds at which the night begins."""

PLACES = ("a beach", "dunes at dawn", "a rainy street", "a harbour in winter", "a forest after the storm")

FAILURES = (
    (Problem("Provider task failed", 80000, 200, "req_prov"), False),
    (Problem("Your prompt was flagged by our content moderation (request 4711)", 80006, 200, "req_mod"), True),
)


def specs(jobs: int, *, takes: int = 3) -> list[JobSpec]:
    """So many jobs, in shots of `takes`, each shot with a prompt of its own."""
    found = []
    for n in range(jobs):
        shot, take = divmod(n, takes)
        place = PLACES[shot % len(PLACES)]
        prompt = f"a corgi running through {place}, cinematic, 35 mm, golden hour, shot {shot}"
        tags = ["hero"] if shot % 7 == 0 else []
        found.append(spec(f"shot-{shot:04d}", take + 1, prompt=prompt, matrix={"place": place.split()[-1]}, tags=tags))
    return found


def some_clips(folder: Path, number: int, *, filmed: bool = False) -> list[Path]:
    """Real MP4 files, one second each; `filmed` ones have the detail of photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for n in range(number):
        width, height = ((640, 360), (360, 640), (480, 480))[n % 3 if n > 3 else 0]
        card = clips.Card(f"corgi {n}", PLACES[n % len(PLACES)], f"task_{n}", "kling", width, height, 1)
        path = folder / f"clip {n}.mp4"
        film(path) if filmed else path.write_bytes(clips.clip(card))
        found.append(path)
    return found


def film(path: Path) -> None:
    """A clip of one picture with the detail of a photograph: noise of every size, laid over each other."""
    import av
    from PIL import Image

    size = (640, 360)
    planes = []
    for _ in range(3):
        plane = Image.new("L", size, 128)
        for octave, part in ((5, 0.7), (11, 0.5), (28, 0.35), (80, 0.22), (320, 0.12)):
            noise = Image.effect_noise((octave, max(2, octave * 9 // 16)), 110)
            plane = Image.blend(plane, noise.resize(size, Image.Resampling.BICUBIC), part)
        planes.append(plane)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        frame = av.VideoFrame.from_image(Image.merge("RGB", planes))  # type: ignore[no-untyped-call]
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def unlike(original: Path, n: int) -> bytes:
    """The clip, and yet bytes of its own: a `free` box at the end, which players skip (ISO/IEC 14496-12, 8.1.2)."""
    return original.read_bytes() + struct.pack(">I4sI", 12, b"free", n)


def outcome(chance: random.Random, n: int) -> str:
    """What becomes of a job: 93 of 100 succeed."""
    if n < 3:
        return "stored"
    return chance.choices(
        ("stored", "failed", "moderated", "rejected", "ambiguous", "running", "pending"), (93, 2, 2, 1, 0.2, 1, 1)
    )[0]


async def play(
    path: Path,
    jobs: Sequence[JobSpec],
    out: Path,
    *,
    distinct: int = 12,
    filmed: bool = False,
    seed: int = 1,
) -> None:
    """Record the jobs in the ledger at `path` and let a night happen to them: a submission every few seconds, twenty
    or so in flight, some refused for the rate, some failed."""
    chance = random.Random(seed)
    originals = some_clips(out.parent / "originals", min(distinct, len(jobs)), filmed=filmed)
    out.mkdir(parents=True, exist_ok=True)
    clock = FakeClock(EVENING)
    async with open_ledger(path, clock) as ledger:
        batch_id = await ledger.record(batch(output_dir=str(out), max_credits=630 * len(jobs) * 2), jobs)
        await ledger.batches()
        known = {job.key: job for job in await jobs_of(ledger, batch_id)}
        steps: list[tuple[float, int, str, e.Event]] = []
        for n, one in enumerate(jobs):
            file = out / f"{one.key}.mp4"
            at = EVENING + n * 25_000 / max(len(jobs), 400)
            for when, event in _tale(chance, n, at, file, originals[n % len(originals)]):
                steps.append((when, len(steps), one.key, event))
        for when, _, key, event in sorted(steps, key=lambda step: step[:2]):
            clock.wall_now = when
            known[key] = await ledger.advance(known[key], event)


def _tale(chance: random.Random, n: int, at: float, file: Path, original: Path) -> Iterator[tuple[float, e.Event]]:
    what = outcome(chance, n)
    if what == "pending":
        return
    if chance.random() < 0.03:
        yield at, e.Claimed()
        yield at + 0.4, e.Throttled(Problem("slow down", 42900, 429, "req_429"), 5.0, at + 5)
        at += 8
    yield at, e.Claimed()
    at += chance.uniform(0.3, 1.5)
    if what == "ambiguous":
        yield at, e.Ambiguous(Problem("the connection was reset before an answer was read", "reset"))
        return
    if what == "rejected":
        yield at, e.Rejected(Problem("duration must be 5 or 10", 40000, 400, f"req_{n}"))
        return
    yield at, e.Accepted(f"task_{n:06d}", f"req_{n:06d}")
    at += chance.lognormvariate(4.6, 0.35)
    if what == "running":
        return
    if what in ("failed", "moderated"):
        problem, moderated = FAILURES[what == "moderated"]
        yield at, e.TaskFailed(problem, moderated=moderated)
        return
    yield at, e.Completed((f"https://cdn.test/{n}.mp4",), 630)
    data = unlike(original, n)
    file.write_bytes(data)
    yield at + chance.uniform(0.5, 3), e.Stored(Output(str(file), hashlib.sha256(data).hexdigest(), len(data)))


def night(folder: Path, number: int, *, distinct: int = 12, filmed: bool = False) -> Path:
    """A ledger of so many jobs in `folder`, the outputs in `folder/out`. Returns its path."""
    path = folder / "batchrunner.db"
    asyncio.run(play(path, specs(number), folder / "out", distinct=distinct, filmed=filmed))
    return path


__all__ = ["EVENING", "Job", "night", "play", "specs"]

if __name__ == "__main__":
    home, count = Path(sys.argv[1]).absolute(), int(sys.argv[2])
    home.mkdir(parents=True, exist_ok=True)
    print(night(home, count))
