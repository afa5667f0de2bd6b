"""Where a worker can die, besides the points of the engine that it works with (`engine.ports.CRASH_POINTS`)."""

from __future__ import annotations

CRASH_POINTS = (
    "carry.fetched",  # jobs are this worker's, and it has begun none of them
    "carry.left",  # it ends, and has not given back what it has not begun
    "carry.given_back",  # and has, and has not said that it ended
    "ending.claimed",  # a batch's end is this worker's to tell, and nobody has heard of it
    "ending.heard",  # those who are to hear have heard, and the ledger does not know
    "ending.noted",  # the ledger knows
)
"""Every name that `Crash` is called with in a worker besides; a test kills one at each."""
