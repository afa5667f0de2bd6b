"""Draws docs/network.md from the tables of the network tests; a test holds the two equal.

Run from the checkout: `python -m docs.make_network`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.network import GROUPS
from tests.network.storms import KNOCKS, STORMS
from tests.network.table import Case, Group

PAGE = Path(__file__).with_name("network.md")

MONEY = {"spent": "spent", "none": "not charged", "at_risk": "at risk", "reserved": "reserved"}

INTRODUCTION = """\
# What a network may do, and how it ends

Made by `python -m docs.make_network` from `tests/network`; don't edit it by hand. `tests/acceptance/test_network.py`
plays every row to the real command line, against a server of raw sockets, and then looks into the ledger, at the files
and at what the server saw.

State and kind are those of the ledger and of `jobs --json`; "money" is what became of the price of each POST that was
sent, in order; "exit" is the exit code of a run in which every job ends so. Wherever it could matter the same command
is run a second time: it sends no POST. "reported" is an error code on stderr and in `run --json` that passes by itself.
"""

BREAKER = """\
The breaker stops submitting, and nothing else, after 3 answers in a row that prove nothing or 5 failures in a row. Run
again, it goes on with what is pending."""


def page() -> str:
    """The whole page, as Markdown."""
    lines = [INTRODUCTION]
    for group in GROUPS:
        lines += _group(group)
    lines += [
        "## A request that is not read to its end",
        "",
        "Where nothing had been sent, that is proven, and the job is sent again. After the first byte it is not.",
        "",
        "| what | state | money | exit |",
        "|---|---|---|---|",
        *(f"| {k.what} | {k.state} | {MONEY[k.money]} | {k.exit} |" for k in KNOCKS),
        "",
        "## A whole run",
        "",
        BREAKER,
        "",
        "| what | jobs | code | POSTs | stop | exit |",
        "|---|---|---|---|---|---|",
    ]
    for storm in STORMS:
        states = ", ".join(f"{count} {state}" for state, count in storm.states.items())
        code = "" if storm.code is None else f"`{storm.code}`"
        lines.append(f"| {storm.what} | {states} | {code} | {storm.posts} | {storm.stop or ''} | {storm.exit} |")
    return "\n".join(lines) + "\n"


def _money(money: tuple[str, ...]) -> str:
    return ", then ".join(MONEY[m] for m in money)


def _group(group: Group) -> Iterator[str]:
    verdict = group.verdict
    state = f"**{verdict.state}**" + (f", kind `{verdict.kind}`" if verdict.kind else "")
    yield from (f"## {group.title}", "", group.about, "")
    sent = "1 POST" if len(verdict.money) == 1 else f"{len(verdict.money)} POSTs"
    yield from (f"{state}; {sent}, {_money(verdict.money)}; exit {verdict.exit}.", "")
    reported = any(case.seen for case in group.cases)
    coded = any(case.code is not None for case in group.cases)
    if not reported and not coded:
        yield from (f"- {case.what}" for case in group.cases)
    else:
        yield from (f"| what | {'reported' if reported else 'code'} |", "|---|---|")
        yield from (f"| {case.what} | {_codes(case)} |" for case in group.cases)
    yield ""


def _codes(case: Case) -> str:
    codes = case.seen or case.codes
    return " or ".join("" if code is None else f"`{code}`" for code in codes)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
