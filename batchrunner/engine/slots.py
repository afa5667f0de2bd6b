"""What a run has so many of: places for tasks in flight, of an account, of all accounts and of single models; and
submissions that it may still make."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Total:
    """Tasks in flight at all accounts of a run together."""

    def __init__(self, limit: int, on_free: Callable[[], None]) -> None:
        self.limit = limit
        self.on_free = on_free
        self._parts: list[Slots] = []

    def join(self, slots: Slots) -> None:
        self._parts.append(slots)

    @property
    def used(self) -> int:
        """Without those of accounts that can't be called any more: nobody follows their tasks in this run."""
        return sum(part.used for part in self._parts if not part.ended())

    @property
    def free(self) -> bool:
        return self.used < self.limit


class Slots:
    """How many tasks may be in flight: POSTs and running tasks together. The limit may be moved while in use."""

    def __init__(
        self,
        limit: int,
        used: int = 0,
        total: Total | None = None,
        ended: Callable[[], bool] = lambda: False,
        models: Mapping[str, int] | None = None,
    ) -> None:
        """Args:
        limit: of this account.
        used: in flight now.
        total: of all accounts of the run, where there are several.
        ended: whether the account can't be called any more.
        models: limits of single models.
        """
        self._models = {name: [limit, 0] for name, limit in (models or {}).items()}
        self.limit = limit
        self.used = used
        self.ended = ended
        self._total = total
        if total is not None:
            total.join(self)

    @property
    def free(self) -> bool:
        return self.used < self.limit and (self._total is None or self._total.free)

    @property
    def all_used(self) -> int:
        """In flight in the whole run."""
        return self.used if self._total is None else self._total.used

    def full(self, model: str) -> bool:
        """Whether a model's own limit is reached."""
        bound = self._models.get(model)
        return bound is not None and bound[1] >= bound[0]

    def take(self, model: str = "") -> None:
        self.used += 1
        if model in self._models:
            self._models[model][1] += 1

    def give_back(self, model: str = "") -> None:
        self.used -= 1
        if model in self._models:
            self._models[model][1] -= 1
        if self._total is not None:
            self._total.on_free()


class Allowance:
    """How many submissions the run may still make (`--limit`), None for any number."""

    def __init__(self, left: int | None) -> None:
        self.left = left

    def take(self) -> None:
        if self.left is not None:
            self.left -= 1

    def give_back(self) -> None:
        if self.left is not None:
            self.left += 1
