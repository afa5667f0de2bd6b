"""`batchrunner` and `python -m batchrunner`."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script."""
    from .cli.errors import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
