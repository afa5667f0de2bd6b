"""A night from Python: what it would cost, whether that is all right, and what becomes of it.

python docs/examples/nightly.py manifests/first.yaml --simulate
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

import batchrunner


async def night(file: str, *, most: int, simulate: bool) -> int:
    manifest = batchrunner.load(file)
    price = batchrunner.plan(manifest).totals.credits
    if price is None or price > most:
        print(f"{manifest.batch} would cost {price} credits, {most} are allowed: not tonight", file=sys.stderr)
        return 4

    failed: list[str] = []
    async with contextlib.aclosing(batchrunner.events(manifest, simulate=simulate, seconds=8 * 3600.0)) as happening:
        async for event in happening:
            if event.name == "stored":
                print(f"{event.job} is in {event.data['output']}")
            elif event.state == "failed":
                failed.append(f"{event.job}: {event.data['error']['message']}")
            elif event.result is not None:
                [batch] = event.result.batches
                print(f"{batch['states']['succeeded']} of {batch['jobs']} for {batch['credits']['spent']} credits")
                print(*failed, sep="\n", end="\n" if failed else "")
                return event.result.exit_code
    raise AssertionError("the last event has the result")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a manifest if it costs no more than it may.")
    parser.add_argument("manifest")
    parser.add_argument("--most", type=int, default=5000, help="credits (1,000 are $1)")
    parser.add_argument("--simulate", action="store_true", help="free, without a key")
    words = parser.parse_args()
    try:
        return asyncio.run(night(words.manifest, most=words.most, simulate=words.simulate))
    except batchrunner.ManifestError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
