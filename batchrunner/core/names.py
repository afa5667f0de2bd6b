"""Common names: what a manifest may call a wish for any model, and what the model calls it.

What a model makes of them is data of the catalogue (`x-batchrunner.names`); this is the little language it is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

COMMON = ("first_frame", "aspect_ratio", "resolution", "duration", "audio")
"""The common names, in the order in which they are applied: whether a ratio is taken may hang on a first frame."""

SLOT = "$"
"""In a template: where the value goes."""

Steps = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class CommonName:
    """What one model makes of one common name.

    Attributes:
        fields: the model's fields that it sets, `SLOT` in the place of the value, such as `{"image_urls": ["$"]}`;
            empty where the model can't.
        values: common value to the model's own, such as `{"1080p": "pro"}`; empty where they are the same.
        reason: why the model can't.
        leave_out: values that need not be told because they ask for nothing, such as `audio: false`. True: what the
            model makes has no such thing, so that defaults for other shots don't concern it.
        not_with: with one of these fields given, what the defaults say does not concern it either.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    leave_out: bool | tuple[Any, ...] = ()
    not_with: tuple[str, ...] = ()
    path: Steps = field(init=False, repr=False, compare=False)
    """The way to the value in a request: `("image_urls", 0)`. Empty where the model can't."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", next(_slots(dict(self.fields)), ()))

    def own(self, value: Any) -> dict[str, Any]:
        """The model's fields for a value of its own."""
        return {name: _filled(template, value) for name, template in self.fields.items()}

    def word(self, value: Any) -> Any:
        """The model's own word for a value; the value itself where it has none."""
        return self.values.get(value, value) if isinstance(value, str) else value

    @property
    def called(self) -> str:
        """What the model calls it: `image_urls[0]`."""
        text = ""
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
        return text

    def needless(self, value: Any, *, shared: bool) -> bool:
        """Whether a model that can't need not be told this value.

        Args:
            value: what is wished.
            shared: whether it stands in the defaults or a profile, not in the shot itself.
        """
        if isinstance(self.leave_out, bool):
            return self.leave_out and shared
        return any(type(value) is type(v) and value == v for v in self.leave_out)

    def told(self, request: Mapping[str, Any]) -> Any:
        """The common value that a request of the model comes to; None where it says nothing of it."""
        found: Any = request
        for step in self.path or ("",):
            try:
                found = found[step]
            except (LookupError, TypeError):
                return None
        return next((common for common, own in self.values.items() if own == found), found)


def _filled(template: Any, value: Any) -> Any:
    if isinstance(template, list):
        return [_filled(item, value) for item in template]
    if isinstance(template, dict):
        return {name: _filled(item, value) for name, item in template.items()}
    return value if template == SLOT else template


def _slots(template: Any) -> Iterator[Steps]:
    if template == SLOT:
        yield ()
    elif isinstance(template, (dict, list)):
        for step, item in template.items() if isinstance(template, dict) else enumerate(template):
            yield from ((step, *rest) for rest in _slots(item))


def parse_names(data: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, CommonName]:
    """What a model makes of the common names.

    Args:
        data: `x-batchrunner.names`: common name to `{"set": {field: template}, "values"?, "not_with"?}` or
            `{"not": reason, "leave_out"?}`. A name that isn't there is the field of that name, where there is one.
        properties: the model's request fields.

    Returns:
        in the order of `COMMON`.
    """
    plain = {name: {"set": {name: SLOT}} for name in properties}
    return {name: _parsed({**plain, **data}[name]) for name in COMMON if name in data or name in plain}


def _parsed(entry: Mapping[str, Any]) -> CommonName:
    leave_out = entry.get("leave_out", ())
    return CommonName(
        entry.get("set", {}),
        entry.get("values", {}),
        entry.get("not", ""),
        leave_out if isinstance(leave_out, bool) else tuple(leave_out),
        tuple(entry.get("not_with", ())),
    )
