"""One shot: defaults under it, the profile over it, a matrix point and a take filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .chains import own_take, stand_in
from .located import Node
from .outputs import NameTemplate
from .requests import SHOT_KEYS, ModelRules, is_text
from .scalars import BadScalar, text_problem
from .spelling import Level, Notes, spell
from .templates import OPEN, TemplateError, fill, fill_typed

TAKE = "${take}"
_SHOT_KEYS = frozenset(SHOT_KEYS)
_SIMPLE = (int, bool)


@dataclass(slots=True)
class Layer:
    """What applies to every shot: `defaults`, or the chosen profile.

    Attributes:
        node: the mapping, for positions; an empty one where the manifest has none.
        fields: request field to raw value.
        bad: fields left out because their value was reported already, once for all shots.
        takes: None where it says nothing.
        tags: None where it says nothing.
        simple: no value needs work: no variable, no list, no float.
    """

    node: Node
    fields: dict[str, Any] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    takes: int | None = None
    tags: list[str] | None = None
    simple: bool = True

    @classmethod
    def read(cls, node: Node) -> Layer:
        """From a mapping of the manifest. What the manifest's schema refuses is left out as `bad`."""
        layer = cls(node)
        for name, value in node.value.items():
            if name not in _SHOT_KEYS:
                layer.fields[name] = value
        layer.takes = takes_of(node.value)
        layer.tags = tags_of(node.value)
        if not isinstance(layer.fields.get("model", ""), str):
            layer.drop("model")
        layer.simple = all(map(is_simple, layer.fields.values()))
        return layer

    def drop(self, name: str) -> None:
        """Leave a field out: it was reported."""
        self.fields.pop(name, None)
        self.bad.add(name)


@dataclass(slots=True)
class Settings:
    """What every shot's expansion depends on.

    Attributes:
        batch, provider: from the manifest.
        profile: name of the chosen profile, if any.
        variables: name to scalar, `batch` included.
        under: the defaults.
        over: the chosen profile's fields.
        name: `output.name`; None to name files after their jobs.
        rules: the models, by name.
    """

    batch: str
    provider: str
    profile: str | None
    variables: dict[str, Any]
    under: Layer
    over: Layer
    name: NameTemplate | None
    rules: Mapping[str, ModelRules]


@dataclass(slots=True)
class Shot:
    """A shot with defaults and profile applied, before matrix and variables.

    Attributes:
        node: the shot as written.
        id: its id.
        fields: request field to raw value, `model` included.
        takes: how many jobs a matrix point makes.
        tags: raw.
        simple: the fields are the request as they are.
        takes_differ: the request depends on the take.
    """

    node: Node
    id: str
    fields: dict[str, Any]
    takes: int
    tags: list[str]
    simple: bool
    takes_differ: bool


def merge(settings: Settings, node: Node) -> Shot:
    """A shot with defaults under it and the profile over it."""
    raw = node.value
    under, over = settings.under, settings.over
    fields = dict(under.fields)
    simple = under.simple and over.simple and node.document.typed
    for name, value in raw.items():
        if name in _SHOT_KEYS:
            continue
        fields[name] = value
        kind = type(value)
        if (kind is str and OPEN in value) or (kind is not str and kind not in _SIMPLE):
            simple = False
    if over.fields:
        fields.update(over.fields)
    tags = over.tags if over.tags is not None else tags_of(raw)
    if tags is None:
        tags = under.tags or []
    takes = over.takes if over.takes is not None else takes_of(raw)
    if takes is None:
        takes = under.takes or 1
    differ = takes > 1 and (
        (not simple and any(TAKE in t or own_take(t) for value in fields.values() for t in strings(value)))
        or any(TAKE in tag for tag in tags)
    )
    return Shot(node, str(raw.get("id", "")), fields, takes, tags, simple, differ)


def takes_of(raw: Mapping[str, Any]) -> int | None:
    """`takes`, None where it is absent or refused by the schema."""
    value = raw.get("takes")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1 or value != int(value):
        return None
    return int(value)


def tags_of(raw: Mapping[str, Any]) -> list[str] | None:
    """`tags`, None where they are absent or refused by the schema."""
    value = raw.get("tags")
    if not isinstance(value, list):
        return None
    for tag in value:
        if not isinstance(tag, str):
            return None
    return value


def request_of(
    settings: Settings,
    shot: Shot,
    point: Mapping[str, Any],
    take: int,
    notes: Notes | None = None,
) -> tuple[ModelRules | None, dict[str, Any], tuple[str, ...]]:
    """The request of one job.

    Args:
        settings: the manifest's.
        shot: the shot.
        point: its matrix point.
        take: 1, 2, ...
        notes: receives what can't be filled in or told to the model; such fields are left out. None where the
            manifest is valid.

    Returns:
        the model's rules (None where there is no such model), the request with `model`, the tags.
    """
    if shot.simple and not point:
        rules = settings.rules.get(shot.fields.get("model", ""))
        request = shot.fields
    else:
        rules, request = fill_in(settings, shot, point, take, notes)
    if rules is not None and not rules.renamed.isdisjoint(request):
        request = spell(rules, request, lambda name: level_of(settings, shot, point, name), shot.fields, notes)
    for tag in shot.tags:
        if OPEN in tag:
            break
    else:
        return rules, request, tuple(shot.tags)
    values = environment(settings, shot, point, take, rules.model.name if rules else "")
    return rules, request, _tags(shot.tags, values, notes)


def fill_in(
    settings: Settings, shot: Shot, point: Mapping[str, Any], take: int, notes: Notes | None
) -> tuple[ModelRules | None, dict[str, Any]]:
    """The first half of `request_of`: variables filled in, common names as they are."""
    filler = _Filler(settings, shot, point, take, notes)
    return filler.rules, filler.request()


def level_of(settings: Settings, shot: Shot, point: Mapping[str, Any], name: str) -> Level:
    """Where a field of a job was given."""
    if name in settings.over.fields:
        return Level.PROFILE
    return Level.SHOT if name in point or name in shot.node.value else Level.DEFAULTS


def environment(settings: Settings, shot: Shot, point: Mapping[str, Any], take: int, model: Any) -> dict[str, Any]:
    """What `${name}` means in a shot's fields and tags."""
    return {**settings.variables, "shot": shot.id, "take": take, "model": model, **point}


def _tags(tags: list[str], values: Mapping[str, Any], notes: Notes | None) -> tuple[str, ...]:
    try:
        return tuple([fill(tag, values, notes.used if notes else None) for tag in tags])
    except TemplateError as error:
        if notes is None:
            raise
        notes.problems.append(("tags", str(error)))
        return ()


class _Filler:
    """Fills in the fields of one job."""

    def __init__(
        self,
        settings: Settings,
        shot: Shot,
        point: Mapping[str, Any],
        take: int,
        notes: Notes | None,
    ) -> None:
        self.fields = {**shot.fields, **point_fields(settings, shot, point)}
        self.problems = notes.problems if notes else None
        self.used = used = notes.used if notes else None
        self.cells = frozenset() if shot.node.document.typed else shot.node.value.keys() - settings.over.fields.keys()
        self.point = point
        self.values = environment(settings, shot, point, take, "")
        model = self.fields.get("model", "")
        self.rules: ModelRules | None = None
        if isinstance(model, str) and OPEN in model:
            del self.values["model"]
            model = self._guard("model", lambda: fill(model, self.values, used))
        if isinstance(model, str):
            self.rules = settings.rules.get(model)
            self.fields["model"] = self.values["model"] = model

    def _guard(self, name: str, make: Any) -> Any:
        try:
            return make()
        except (TemplateError, BadScalar) as error:
            if self.problems is None:
                raise
            self.problems.append((name, str(error)))
            return None

    def request(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in self.fields.items():
            if name == "model" or (is_simple(value) and name not in self.cells):
                result[name] = value
                continue
            count = len(self.problems) if self.problems is not None else 0
            value = self._guard(name, lambda name=name, value=value: self._value(name, value))
            if self.problems is None or len(self.problems) == count:
                result[name] = value
        return result

    def _value(self, name: str, value: Any) -> Any:
        rules = self.rules
        schema = rules.accepts.get(name) if rules else None
        if name in self.point:  # filled in when the matrix was read
            return value
        value = self._fill(value, schema)
        if rules is not None:
            if name in self.cells and isinstance(value, str):
                value = rules.from_text(name, value)
            value = rules.convert(name, value)
        return value

    def _fill(self, value: Any, schema: Any) -> Any:
        if isinstance(value, str):
            if OPEN not in value:
                return value
            if (other := stand_in(value)) is not None:
                return other
            text = is_text(schema) or schema is None
            filled = fill(value, self.values, self.used) if text else fill_typed(value, self.values, self.used)
            problem = text_problem(filled) if isinstance(filled, str) else None
            if problem:
                raise TemplateError(problem)
            return filled
        known = schema if isinstance(schema, dict) else {}
        if isinstance(value, list):
            return [self._fill(item, known.get("items")) for item in value]
        if isinstance(value, dict):
            inner = known.get("properties", {})
            return {name: self._fill(item, inner.get(name)) for name, item in value.items()}
        return value


def point_fields(settings: Settings, shot: Shot, point: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a matrix point that sets request fields."""
    if not point:
        return {}
    model = point.get("model", shot.fields.get("model"))
    rules = settings.rules.get(model) if isinstance(model, str) else None
    # A model that is a variable: any model's fields will do.
    models = settings.rules.values() if rules is None else [rules]
    known = {name for r in models for name in r.takes}
    return {name: value for name, value in point.items() if name in known}


def is_simple(value: Any) -> bool:
    """Whether a raw value goes into the request as it is."""
    return OPEN not in value if type(value) is str else type(value) in _SIMPLE


def strings(value: Any) -> Iterator[str]:
    """Every string in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
