"""`doctor`: check what a night rests on."""

from __future__ import annotations

import click

from ..core.text import visible
from ..ledger.address import Address
from .options import db_option, json_option, ledger_path
from .tables import STATE_COLOURS, colours, print_json, say


@click.command(
    epilog="""\b
Examples:
  batchrunner doctor
  batchrunner doctor --offline --json | jq '.checks[] | select(.level != "ok")'

\b
Exit codes: 0 nothing failed (warnings may be printed), 1 something failed, 6 the provider refused the key or can't be
reached.
"""
)
@click.option("--offline", is_flag=True, help="Ask the provider nothing.")
@json_option
@db_option
def doctor(offline: bool, as_json: bool, db: Address | None) -> int:
    """Check key, balance, disk, SQLite and clock.

    Changes nothing, and costs nothing. The key is never shown.
    """
    from ..doctor import Check, examine, exit_code

    checks: list[Check] = []
    for check in examine(ledger_path(db), offline=offline):
        checks.append(check)
        if not as_json:
            _print(check.name, check.level.value, check.text, check.fix)
    code = exit_code(checks)
    if as_json:
        listed = [{"check": c.name, "level": c.level.value, "text": c.text, "fix": c.fix or None} for c in checks]
        print_json({"ok": code == 0, "checks": listed})
    return code


def _print(name: str, level: str, text: str, fix: str) -> None:
    mark = f"{level:<4}"
    if colours():
        mark = click.style(mark, fg=STATE_COLOURS[level])
    say(f"{mark}  {name:<14} {visible(text)}")
    if fix:
        say(f"      {'':<14} {visible(fix)}")
