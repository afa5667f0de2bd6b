"""Common names in a request become the model's own fields (`core/names.py`); what a model can't take is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ..core.names import CommonName
from .requests import ModelRules
from .templates import OPEN


class Level(IntEnum):
    """Where a field was given; the higher wins."""

    DEFAULTS = 0
    SHOT = 1
    PROFILE = 2


LevelOf = Callable[[str], Level]


@dataclass(slots=True)
class Notes:
    """What was noticed while the request of a job was made.

    Attributes:
        problems: (field, message) of what can't be filled in.
        refused: (field, message) of what the model can't be told.
        left_out: (field, message) of what the model was not told, and need not be.
        spelled: the model's field to the common name that set it.
        used: names of variables that occur; may be shared by many jobs.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    spelled: dict[str, str] = field(default_factory=dict)
    used: set[str] | None = None

    @property
    def anything(self) -> bool:
        """Whether there is anything of one job in it; if not, it may serve the next."""
        return bool(self.problems or self.refused or self.left_out or self.spelled)


def spell(
    rules: ModelRules, fields: Mapping[str, Any], level: LevelOf, raw: Mapping[str, Any], notes: Notes | None
) -> dict[str, Any]:
    """The request in the model's own words.

    Args:
        rules: the model's.
        fields: field or common name to value, variables filled in.
        level: where each of them was given.
        raw: the values before variables were filled in.
        notes: receives what is to be told; None where that was done.
    """
    request = {name: value for name, value in fields.items() if name not in rules.renamed}
    notes = notes or Notes()
    for name, common in rules.names.items():
        if name not in rules.renamed or name not in fields:
            continue
        value, shared = fields[name], level(name) != Level.SHOT
        if not common.fields:
            if common.needless(value, shared=shared):
                notes.left_out.append((name, f"{rules.model.name} takes no {name}: {common.reason}; it is left out"))
            else:
                mend = ", and give it in the shots whose model takes it" if shared else ""
                notes.refused.append((name, f"{rules.cant(name)}; take it out{mend}"))
            continue
        other = next((f for f in common.not_with if request.get(f)), None) if shared else None
        if other is not None:
            notes.left_out.append((name, f"{rules.model.name} takes no {name} with {other}; there it is left out"))
            continue
        wrong = rules.common_problems(name, value) if common.values and name not in rules.properties else []
        if wrong:
            notes.refused.append((name, wrong[0].message))
            continue
        _set(request, name, common, value, fields, level, raw, notes)
    return request


def _set(
    request: dict[str, Any],
    name: str,
    common: CommonName,
    value: Any,
    fields: Mapping[str, Any],
    level: LevelOf,
    raw: Mapping[str, Any],
    notes: Notes,
) -> None:
    """Set the fields that a common name stands for. Where they are given too, the higher level wins."""
    clash = [f for f in common.fields if f in fields and f != name]
    if any(f"{OPEN}{name}}}" in str(raw.get(f)) for f in clash):
        return  # the name is a variable of the matrix, from which the field is made
    above = max((level(f) for f in clash), default=Level.DEFAULTS)
    if clash and above == level(name):
        message = f"{name} and {clash[0]} are both given and mean one thing; keep one of them"
        notes.refused.append((name, message))
        return
    if clash and above > level(name):
        return
    for f, own in common.own(common.word(value)).items():
        request[f] = own
        notes.spelled[f] = name
