"""What the environment says: the keys, the servers, and who asks. The only module that reads a key."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from . import plugins
from .core.secret import forms, hide
from .exits import UsageError

if TYPE_CHECKING:
    from .catalogue import Model
    from .providers.base import Access, Provider, ProviderKind

THIS_MACHINE = "a server on this machine"
"""What a ledger that was used with a loopback server is bound to; `doctor` compares."""


def person() -> str:
    """Who gives a person's word on this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


STORE_SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_SECRET",
)
"""The variables in which the packages for object storage (botocore, adlfs) look for what is secret."""


def keys() -> list[str]:
    """The keys that are set, of every provider and of object storage: what must stand nowhere else."""
    return [key for key in map(os.environ.get, (*plugins.key_variables(), *STORE_SECRETS)) if key]


def passwords() -> list[str]:
    """What gives a database's password away, as far as this process was told one: on the command line or in the
    environment."""
    from .ledger.address import is_url, parse

    found: list[str] = []
    for text in (os.environ.get("BATCHRUNNER_DB", ""), *sys.argv[1:]):
        address = text.removeprefix("--db=")
        with suppress(ValueError):
            found += parse(address).secrets if is_url(address) else ()
    return [*found, *filter(None, [os.environ.get("PGPASSWORD")])]


def secrets(variables: Mapping[str, str] | None = None) -> list[str]:
    """What may stand in no manifest, and is written nowhere: the keys in every form.

    Args:
        variables: of `--var`, which are the first place where one would stand by mistake.

    Raises:
        UsageError: one stands in a variable.
    """
    found = [form for key in keys() for form in forms(key)]
    for name, value in (variables or {}).items():
        if hide(value, found) != value:
            raise UsageError(f"--var {name} contains an API key; it belongs into the environment, and nowhere else")
    return found


def kind_of(name: str) -> ProviderKind:
    """A provider, as its package offers it.

    Raises:
        UsageError: there is none, or it can't be used.
    """
    from .providers.base import ProviderKind

    try:
        kind = plugins.load(name)
    except plugins.ProviderUnusable as unusable:
        raise UsageError(str(unusable)) from None
    if not isinstance(kind, ProviderKind) or kind.name != name:
        raise UsageError(f"the provider {name} can't be used: its entry point does not name a ProviderKind of its name")
    return kind


def has_key(kind: ProviderKind) -> bool:
    """Whether a key of this provider is set."""
    return any(os.environ.get(variable) for variable in kind.keys)


def served() -> list[str]:
    """The providers whose keys are set here. A package that is broken offers none.

    Raises:
        UsageError: there is none.
    """
    found: list[str] = []
    variables: list[str] = []
    for name in plugins.names():
        with suppress(UsageError):
            kind = kind_of(name)
            variables.append(kind.keys[0])
            if has_key(kind):
                found.append(name)
    if not found:
        raise UsageError(f"no API key: set {', '.join(variables[:-1])} or {variables[-1]} in the environment")
    return found


def access(kind: ProviderKind) -> Access:
    """How to reach the account, as the environment says.

    Raises:
        UsageError: no key is set.
    """
    from .providers.base import DEFAULT_USER_AGENT, Access

    key = next((found for found in map(os.environ.get, kind.keys) if found), "")
    if not key:
        raise UsageError(f"no API key: set {kind.keys[0]} in the environment (or try the run with --simulate, free)")
    base = os.environ.get(kind.base_variable) or kind.base_url
    return Access(base, key, os.environ.get("BATCHRUNNER_USER_AGENT") or DEFAULT_USER_AGENT)


def connect(
    kind: ProviderKind,
    how: Access,
    clock: Callable[[], float] | None = None,
    models: Mapping[str, Model] | None = None,
) -> Provider:
    """A provider that is ready to be called.

    Raises:
        UsageError: the key or the base URL can't be used, or the provider is not what it says of itself.
    """
    from .providers.base import Traceable

    try:
        provider = kind.open(how, clock, models)
    except ValueError as error:
        raise UsageError(f"{kind.name}: {error}") from None
    if isinstance(provider, Traceable) != kind.capabilities.lookup:
        does = "does not say that it has a lookup, and has one" if not kind.capabilities.lookup else "has no lookup"
        raise UsageError(f"the provider {kind.name} {does}: its package is broken (docs/providers.md)")
    return provider


def traces_wanted() -> bool:
    """Whether a standard variable asks for OpenTelemetry traces, sent by OTLP.

    Raises:
        UsageError: it asks for another way than ours, OTLP over HTTP.
    """
    kind, asked = os.environ.get("OTEL_TRACES_EXPORTER", ""), False
    for name in ("ENDPOINT", "TRACES_ENDPOINT"):
        asked = asked or bool(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}"))
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or kind == "none" or not (kind or asked):
        return False
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if kind not in ("", "otlp") or protocol not in (None, "", "http/protobuf"):
        raise UsageError("an OTEL_ variable asks for traces, and they can be sent by OTLP over http/protobuf only")
    return True
