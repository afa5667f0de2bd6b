"""Manifests to measure with."""

from __future__ import annotations

from pathlib import Path

MANY = 1_000_000
"""As good as no limit: the most that a manifest may say."""


def write(path: Path, shots: int, *, in_flight: int, per_minute: int = MANY, batch: str = "bench") -> Path:
    """A manifest of `shots` shots of about 260 bytes, with limits that do not slow a run down unless asked to, and a
    budget, so that it is kept."""
    with path.open("w") as file:
        file.write(
            f"version: 1\nbatch: {batch}\n"
            "defaults: {model: kling-3-0-turbo, duration: 3, resolution: 720p}\n"
            f"limits: {{submits_per_minute: {per_minute}, in_flight: {in_flight}}}\n"
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
