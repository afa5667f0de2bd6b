"""Manifests to measure with."""

from __future__ import annotations

from pathlib import Path

MANY = 1_000_000
"""As good as no limit: the most that a manifest may say."""


def write(
    path: Path, shots: int, *, in_flight: int, per_minute: int = MANY, polls: int | None = None, batch: str = "bench"
) -> Path:
    """A manifest of `shots` shots of about 260 bytes, with limits that do not slow a run down unless asked to, and a
    budget, so that it is kept. `polls`: a minute; None for those that a run takes by itself."""
    limits = f"submits_per_minute: {per_minute}, in_flight: {in_flight}"
    if polls is not None:
        limits += f", polls_per_minute: {polls}"
    with path.open("w") as file:
        file.write(
            f"version: 1\nbatch: {batch}\n"
            "defaults: {model: kling-3-0-turbo, duration: 3, resolution: 720p}\n"
            f"limits: {{{limits}}}\n"
            "budget: {max_credits: 1000000000}\n"
            "shots:\n"
        )
        for number in range(shots):
            file.write(
                f"  - id: shot-{number:07d}\n"
                f"    prompt: a corgi on the beach, take of the sunset number {number}, cinematic, slow pan, "
                "warm light, gulls over the pier, shallow depth of field, 35 mm film, grain, a child with a red kite "
                "runs through the picture\n"
                "    tags: [beach]\n"
            )
    return path
