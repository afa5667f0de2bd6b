"""Which providers there are: names, and where each is found. Nothing of a provider is imported before it is used.

The shipped ones are named here. A package adds one by an entry point:

    [project.entry-points."batchrunner.providers"]
    acme = "acme_batchrunner:KIND"

`KIND` is a `providers.base.ProviderKind`. A package can't take the place of a shipped provider: a key is handed to what
was meant, whatever is installed beside it.
"""

from __future__ import annotations

import functools
import glob
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "batchrunner.providers"


class ProviderUnusable(Exception):
    """There is no such provider, or its package is broken; the message says which."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A provider of this package: its module, and the variables that its key may stand in."""

    module: str
    keys: tuple[str, ...]


SHIPPED: Mapping[str, Shipped] = {
    "reapi": Shipped("batchrunner.providers.reapi", ("REAPI_API_KEY", "REAPI_KEY")),
    "fal": Shipped("batchrunner.providers.fal", ("FAL_KEY",)),
    "replicate": Shipped("batchrunner.providers.replicate", ("REPLICATE_API_TOKEN",)),
}
"""A test holds each against its `KIND`."""


def names() -> tuple[str, ...]:
    """Every provider that is installed, the shipped ones first."""
    return (*SHIPPED, *_found())


def load(name: str) -> Any:
    """The `KIND` of a provider.

    Raises:
        ProviderUnusable: see there.
    """
    if name in SHIPPED:
        return importlib.import_module(SHIPPED[name].module).KIND
    if name not in _found():
        raise ProviderUnusable(f"no provider {name} is installed; there are {', '.join(names())}")
    point = _found()[name]
    try:
        return point.load()
    except Exception as error:
        raise ProviderUnusable(
            f"the provider {name} can't be loaded from {point.value}: {type(error).__name__}: {error}"
        ) from error


@functools.cache
def key_variables() -> tuple[str, ...]:
    """Every environment variable that a provider's key may stand in. A package that is broken has none."""
    found = [variable for shipped in SHIPPED.values() for variable in shipped.keys]
    for name in _found():
        try:
            found += [str(variable) for variable in load(name).keys]
        except (ProviderUnusable, AttributeError, TypeError):
            continue
    return tuple(dict.fromkeys(found))


@functools.cache
def _found() -> Mapping[str, EntryPoint]:
    """The entry points of other packages, by name, sorted."""
    if not _any():
        return {}
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=GROUP)}
    return {name: found[name] for name in sorted(found) if name not in SHIPPED}


def _any() -> bool:
    """Whether any package names the group: a look of 2 ms, where to read everybody's metadata takes 45."""
    for folder in sys.path:
        for file in glob.iglob(os.path.join(glob.escape(folder or "."), "*-info", "entry_points.txt")):
            try:
                with open(file, encoding="utf-8") as text:
                    if f"[{GROUP}]" in text.read():
                        return True
            except (OSError, UnicodeDecodeError):
                continue
    return False
