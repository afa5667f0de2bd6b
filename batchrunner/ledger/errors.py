"""What can go wrong with the ledger, by what the caller may do."""

from __future__ import annotations


class LedgerError(Exception):
    """The ledger can't be used, or could not write. The message is for the user and says how to mend it."""


class LedgerUnusable(LedgerError):
    """Not a ledger of ours, a newer one, damaged, on a network filesystem, or not readable: stop before anything."""


class LedgerBusy(LedgerError):
    """Another runner holds the ledger."""


class WriteFailed(LedgerError):
    """A commit failed (disk full, I/O error). What it would have recorded is not recorded."""


class Conflict(LedgerError):
    """Compare-and-set found another state than the caller's: a bug, or a second writer."""


class NotYet(LedgerError):
    """The account's rate, a hold or what is in flight lets nobody send now. Nothing was written.

    Attributes:
        seconds: until it is worth asking again.
        model: whose own bounds are reached; empty where it is the account that lets nobody send.
    """

    def __init__(self, seconds: float, model: str = "") -> None:
        super().__init__(f"{model or 'the account'} lets nobody send for {seconds:.3f} s")
        self.seconds = seconds
        self.model = model


class BudgetExhausted(LedgerError):
    """The claim would have taken the batch beyond its cap. Nothing was written."""


class DuplicateTask(LedgerError):
    """The task id belongs to another submission already. Nothing was written."""

    def __init__(self, task_id: str, job: str) -> None:
        super().__init__(f"task {task_id} belongs to job {job} already")
        self.task_id = task_id
        self.job = job
