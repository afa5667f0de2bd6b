"""The file of a frozen plan: written whole or not at all, and believed only where it is what was written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from .catalogue import Model, models, schema_folder
from .core.frozen import FORMAT, VERSION, Arguments, Damaged, Frozen, FrozenBatch, FrozenJob, from_json, to_json
from .core.text import visible
from .exits import UsageError
from .ledger.address import Address, is_url, parse
from .planning import Plan

LARGEST = 1 << 30
"""Bytes beyond which a file is not read: a plan of a million jobs has fewer."""


def freeze(
    plans: Sequence[Plan],
    arguments: Arguments,
    *,
    path: Path,
    ledger: Address,
    made_at: str,
    known: Mapping[str, Model] | None = None,
) -> Frozen:
    """What `plan --out` writes.

    Args:
        plans: what was planned.
        arguments: what it was asked for.
        path: where it will be written; other paths are kept relative to its folder.
        ledger: the ledger that was compared with.
        made_at: now, ISO 8601 in UTC.
        known: the models there are, for the dates of their prices; None for the shipped ones.

    Raises:
        UsageError: a price is not known.
    """
    for plan in plans:
        if plan.totals.unpriced:
            raise UsageError(
                f"{plan.batch}: a price that nobody knows can't be frozen; give it in the manifest under prices:"
            )
    return Frozen(
        made_at, _ledger(ledger, path), arguments, tuple(_batch(plan, path, known or models()) for plan in plans)
    )


def _batch(plan: Plan, path: Path, known: Mapping[str, Model]) -> FrozenBatch:
    jobs = {
        c.job: FrozenJob(c.change.value, c.credits, c.spec.fingerprint, c.spec.provider, c.spec.request)
        for c in plan.changes
        if c.spec is not None and c.credits is not None
    }
    dates = {m: known[m].price for m in sorted({str(job.request["model"]) for job in jobs.values()}) if m in known}
    prices = {model: price.as_of for model, price in dates.items() if price is not None}
    return FrozenBatch(plan.batch, _relative(plan.file, path), prices, jobs)


def _relative(target: Path, path: Path) -> str:
    return os.path.relpath(target, os.path.dirname(os.path.abspath(path)))


def _ledger(ledger: Address, path: Path) -> str:
    return _relative(ledger, path) if isinstance(ledger, Path) else str(ledger)


def ledger_of(path: Path, text: str) -> Address:
    """The ledger that a plan at `path` means. Raises UsageError."""
    if not is_url(text):
        return place_of(path, text)
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def place_of(path: Path, relative: str) -> Path:
    """The absolute path that a plan at `path` means."""
    return Path(os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(path)), relative)))


def write(path: Path, plan: Frozen) -> None:
    """Write it, over an older plan if there is one, and over nothing else.

    Raises:
        UsageError: something else is there, or it can't be written.
    """
    if os.path.lexists(path) and not _is_plan(path):
        raise UsageError(f"{path} exists and is no plan: it is not overwritten; name another file")
    text = json.dumps(to_json(plan), ensure_ascii=False, indent=1)
    folder = os.path.dirname(os.path.abspath(path))
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None


def _is_plan(path: Path) -> bool:
    try:
        data = _load(path)
    except UsageError:
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def read(path: Path) -> Frozen:
    """Read a plan.

    Raises:
        UsageError: there is none, or it is not what `write` wrote.
    """
    data = _load(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        _refuse(path, "is no plan; `batchrunner plan MANIFEST --out FILE` writes one")
    if data.get("version") != VERSION:
        _refuse(path, f"has the version {visible(str(data.get('version')), 20)}, and this batchrunner reads {VERSION}")
    _check(path, data)
    try:
        return from_json(data)
    except (Damaged, UnicodeError):
        _refuse(path, "was changed or damaged since it was written (its digest is another one); make it again")


def _load(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    if len(data) > LARGEST:
        _refuse(path, "is too large for a plan")
    try:
        return json.loads(data, parse_constant=_not_json)
    except (ValueError, RecursionError):
        _refuse(path, "is no JSON")


def _not_json(word: str) -> NoReturn:
    raise ValueError(word)


def _check(path: Path, data: Mapping[str, Any]) -> None:
    from .manifest.schema_errors import Explainer, gate

    schema = json.loads((schema_folder() / "plan.schema.json").read_text("utf-8"))
    if gate(schema).is_valid(data):
        return
    problem = next(iter(Explainer(schema).problems(data, "a plan")), None)
    where = "".join(f"[{s}]" if isinstance(s, int) else f".{visible(s, 60)}" for s in problem.steps) if problem else ""
    _refuse(
        path, f"is no valid plan: {f'{where[1:]}: ' if where else ''}{problem.message if problem else 'it is damaged'}"
    )


def _refuse(path: Path, why: str) -> NoReturn:
    raise UsageError(f"{path} {why}")
