"""What the environment says: the key, the server, and who asks. The only module that reads the key."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .core.secret import forms, hide
from .exits import UsageError

if TYPE_CHECKING:
    from .providers.reapi import ReApiSettings

THIS_MACHINE = "a server on this machine"
"""What a ledger that was used with a loopback server is bound to; `doctor` compares."""


def person() -> str:
    """Who gives a person's word on this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def keys() -> list[str]:
    """The keys that are set: what must stand nowhere else."""
    return [key for key in map(os.environ.get, ("REAPI_API_KEY", "REAPI_KEY")) if key]


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
            raise UsageError(f"--var {name} contains the API key; it belongs into REAPI_API_KEY, and nowhere else")
    return found


def provider_settings() -> ReApiSettings:
    """reAPI's settings from the environment.

    Raises:
        UsageError: no key, or a base URL that can't be used.
    """
    from .providers.reapi import DEFAULT_USER_AGENT, ReApiSettings

    key = os.environ.get("REAPI_API_KEY") or os.environ.get("REAPI_KEY") or ""
    if not key:
        raise UsageError("no API key: set REAPI_API_KEY in the environment (or try the run with --simulate, free)")
    base = os.environ.get("REAPI_BASE_URL") or "https://reapi.ai"
    agent = os.environ.get("BATCHRUNNER_USER_AGENT") or DEFAULT_USER_AGENT
    try:
        return ReApiSettings(base_url=base, key=key, user_agent=agent)
    except ValueError as error:
        raise UsageError(str(error)) from None
