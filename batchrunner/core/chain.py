"""Chains: a job whose request names another job's output, which has a URL only once that job has succeeded.

In a stored request such a place holds a reference, `{"$output": {"job", "of", "url"}}`: the parent's key, its
fingerprint, and which of its URLs. So the fingerprint of a job covers those of all that it comes from, and an edited
parent makes a new revision of every descendant. What is sent has a URL there, and is kept with the attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .text import visible

MARK = "$output"
"""The one key of a reference. No model has such a field; a test holds that."""

URLS = ("output_url", "last_frame_url")
"""What of a job can be referred to: its first output, the picture of its clip's end."""

Steps = tuple[str | int, ...]
"""The way to a value in a request."""


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """What a request needs of another job of its batch.

    Attributes:
        job: the parent's key.
        of: the fingerprint of the very revision that is meant.
        url: one of `URLS`.
    """

    job: str
    of: str
    url: str

    @property
    def reference(self) -> dict[str, Any]:
        """As it stands in a request."""
        return {MARK: {"job": self.job, "of": self.of, "url": self.url}}

    @property
    def text(self) -> str:
        """For people, as a manifest would name that very job."""
        return f"${{shots.{self.job}.{self.url}}}"


def need_of(value: Any) -> Need | None:
    """The reference that a value is; None where it is anything else."""
    if type(value) is dict and len(value) == 1 and type(inner := value.get(MARK)) is dict:
        return Need(str(inner.get("job")), str(inner.get("of")), str(inner.get("url")))
    return None


def needs(request: Mapping[str, Any]) -> tuple[Need, ...]:
    """What a stored request needs, each once, in its order; empty for most."""
    if not any(type(value) in _NESTED for value in request.values()):
        return ()
    return tuple(dict.fromkeys(_needs(request)))


_NESTED = frozenset({dict, list})


def _needs(value: Any) -> Iterator[Need]:
    if (need := need_of(value)) is not None:
        yield need
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _needs(item)


def replaced(request: Mapping[str, Any], by: Callable[[Need], Any]) -> dict[str, Any]:
    """The request with something else in the place of every reference."""
    return {name: _replaced(value, by) for name, value in request.items()}


def _replaced(value: Any, by: Callable[[Need], Any]) -> Any:
    if (need := need_of(value)) is not None:
        return by(need)
    if isinstance(value, dict):
        return {name: _replaced(item, by) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, by) for item in value]
    return value


def spoken(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request as people and scripts read it: `${shots.still-1.output_url}` in the place of a reference."""
    return replaced(request, lambda need: need.text)


def changed_parents(before: Any, after: Any) -> tuple[str, ...]:
    """Keys of the parents because of whose change alone a field is another one; empty where it differs otherwise."""
    old, new = list(_needs(before)), list(_needs(after))
    if not new or [(n.job, n.url) for n in old] != [(n.job, n.url) for n in new]:
        return ()
    if _replaced(before, lambda n: n.text) != _replaced(after, lambda n: n.text):
        return ()
    return tuple(dict.fromkeys(b.job for a, b in zip(old, new, strict=True) if a.of != b.of))


# --- Drawing ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A job needs another one's output. `url` is one of `URLS`."""

    parent: str
    child: str
    url: str


def mermaid(nodes: Mapping[str, str], links: Sequence[Link]) -> str:
    """A flowchart for Mermaid.

    Args:
        nodes: key to what stands below it, such as its price.
        links: between them.
    """
    names = {key: f"n{i}" for i, key in enumerate(nodes)}
    lines = ["flowchart LR"]
    lines += [f'  {names[key]}["{_entities(key)}<br/>{_entities(text)}"]' for key, text in nodes.items()]
    lines += [f"  {names[k.parent]} -->|{k.url}| {names[k.child]}" for k in links]
    return "\n".join(lines) + "\n"


def dot(nodes: Mapping[str, str], links: Sequence[Link]) -> str:
    """The same for Graphviz."""
    lines = ["digraph batch {", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f'  {_quoted(key)} [label="{_escaped(key)}\\n{_escaped(text)}"];' for key, text in nodes.items()]
    lines += [f'  {_quoted(k.parent)} -> {_quoted(k.child)} [label="{_escaped(k.url)}"];' for k in links]
    return "\n".join([*lines, "}"]) + "\n"


DRAW = {"mermaid": mermaid, "dot": dot}
"""How a graph can be drawn, by name."""


def _entities(text: str) -> str:
    """Text that Mermaid takes as it is: everything but letters, digits and a few harmless marks by its number."""
    return "".join(c if c.isascii() and (c.isalnum() or c in " .,_=+@$-") else f"#{ord(c)};" for c in visible(text))


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Text between double quotes in dot, where a backslash begins an escape of labels."""
    return visible(text).replace("\\", "\\\\").replace('"', '\\"')
