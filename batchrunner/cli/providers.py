"""`providers`: the services that can be used, and what each of them can do."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..core.text import visible
from ..exits import EXIT_OK, UsageError
from .options import any_db_option, json_option
from .tables import print_json, print_table, say, warn

if TYPE_CHECKING:
    from ..providers.base import Capabilities, ProviderKind


@click.command(
    epilog="""\b
Examples:
  batchrunner providers
  batchrunner providers --json | jq '.[] | {provider, capabilities}'
  pip install batchrunner-acme && batchrunner providers    a package that brings one is all it takes
"""
)
@json_option
@any_db_option
def providers(as_json: bool) -> int:
    """List the services: where the key of each belongs, and what it can do.

    A manifest names one with `provider:`. A package may add others (docs/providers.md).
    """
    from .. import plugins
    from ..environment import has_key, kind_of

    found: list[ProviderKind] = []
    for name in plugins.names():
        try:
            found.append(kind_of(name))
        except UsageError as error:
            warn(visible(str(error)))
    if as_json:
        print_json([_json(kind) for kind in found])
        return EXIT_OK
    rows = [
        (visible(k.name), visible(" or ".join(k.keys)), "set" if has_key(k) else "not set", *_can(k.capabilities))
        for k in found
    ]
    print_table(("provider", "key", "", "cancel", "lookup", "over the limit", "outputs kept", "balance"), rows)
    say()
    say("lookup: whether a run asks the service what became of a lost answer; where not, `resolve` is your word")
    return EXIT_OK


def _can(can: Capabilities) -> tuple[str, ...]:
    kept = "not said" if can.output_hours is None else f"{can.output_hours:g} h"
    yes = {True: "yes", False: "no"}
    return yes[can.cancel], yes[can.lookup], can.over_limit.value, kept, yes[can.balance]


def _json(kind: ProviderKind) -> dict[str, Any]:
    from ..environment import has_key
    from ..plugins import SHIPPED

    return {
        "provider": kind.name,
        "title": kind.title,
        "shipped": kind.name in SHIPPED,
        "keys": list(kind.keys),
        "key_set": has_key(kind),
        "base_url": os.environ.get(kind.base_variable) or kind.base_url,
        "base_variable": kind.base_variable,
        "source": kind.source,
        "capabilities": asdict(kind.capabilities),
    }
