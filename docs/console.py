"""Plays the ```console blocks of a page in a real shell, and compares what they print with what the page says.

Run from the checkout: `python -m docs.console PAGE...` writes what commands print now into pages that say otherwise.

In a page, a line of a console block that begins with `$ ` is a command; what follows is what it prints, `...` for any
lines at all. A block with a title (```yaml title="first.yaml") is a file that is there from that line on. A page's
commands share one shell and one empty folder. A command must succeed unless `$ echo $?` comes next.
`<!-- not run: why -->` in the line before a block spares it. Whatever is paid for goes to a simulator.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOME = "/home/me"
"""What pages call the folder in which their commands run."""

PATIENCE = 240.0
"""Seconds after which a page that should have been played hangs."""

MARK = "\x1e"
FENCE = re.compile(r"^```(\w+)?(.*)$")
TITLE = re.compile(r'title="([^"]+)"')
SPARED = re.compile(r"^<!-- not run: (.+) -->$")
RUNNER = ("-m", "batchrunner")

VARIABLE = [
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+Z?)?"), "TIME"),
    (re.compile(r"\b(task|req)_[0-9a-f]{8,}"), r"\1_ID"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"\d[\d,]*( bytes)"), r"N\1"),
    (re.compile(r"\b\d+(\.\d+)? (s|ms|min)\b"), r"N \2"),
    (re.compile(r"\bbalance +\d.*"), "balance N"),
    (re.compile(r"127\.0\.0\.1:\d+"), "HOST"),
    (re.compile(r" {2,}"), "  "),  # a column is as wide as what stands in it
]
"""What is different each time."""

CONCURRENT = re.compile(r"^([\w.@=+-]+: (succeeded|failed|UNCONFIRMED)|no more submissions)")
"""A line of a run while it goes on: these come as they come."""


@dataclass(slots=True)
class Command:
    """A line to run. `line` is where it stands in the page, from 1; `said` what the page says that it prints."""

    line: int
    text: str
    said: list[str]


@dataclass(frozen=True, slots=True)
class File:
    """A file that the reader is told to write."""

    line: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Played:
    """A command as it went."""

    command: Command
    code: int
    printed: list[str]


def steps(text: str) -> list[Command | File]:
    """The commands and files of a page, in order."""
    found: list[Command | File] = []
    for line, language, extra, body in _blocks(text.splitlines()):
        title = TITLE.search(extra)
        if title:
            found.append(File(line, title[1], "\n".join(body) + "\n"))
        elif language == "console":
            found += _commands(line, body)
    return found


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, str, str, list[str]]]:
    """(line of the body's first line, language, the rest of the fence, body) of each block that is not spared."""
    at = 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        end = lines.index("```", at + 1)
        if at == 0 or SPARED.match(lines[at - 1]) is None:
            yield at + 2, fence[1] or "", fence[2], list(lines[at + 1 : end])
        at = end + 1


def _commands(line: int, body: Sequence[str]) -> list[Command]:
    found: list[Command] = []
    for number, text in enumerate(body, line):
        if text.startswith("$ "):
            found.append(Command(number, text[2:], []))
        elif found and found[-1].text.endswith("\\"):
            found[-1].text += f"\n{text}"
        elif found:
            found[-1].said.append(text)
        else:
            raise ValueError(f"line {number}: a console block begins with a command")
    return found


def play(page: Path, folder: Path, server: str) -> list[Played]:
    """Run a page's commands in an empty `folder`; `server` is the simulator that is paid.

    Raises:
        subprocess.TimeoutExpired: it hangs.
    """
    home, tools = folder / "me", folder / "bin"
    home.mkdir()
    tools.mkdir()
    tool = tools / "batchrunner"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {" ".join(RUNNER)} "$@"\n', "utf-8")
    tool.chmod(0o755)
    commands = []
    script = [f"mark() {{ local code=$?; printf '{MARK}%s{MARK}' $code; return $code; }}"]
    for step in steps(page.read_text("utf-8")):
        if isinstance(step, File):
            word = f"END_OF_{step.line}"
            script.append(f"__code=$?; mkdir -p \"$(dirname '{step.name}')\"; cat > '{step.name}' <<'{word}'")
            script += [step.text + word, "(exit $__code)"]
        else:
            commands.append(step)
            script += ["mark", step.text]
    script.append("mark")
    ours = {
        n: v for n, v in os.environ.items() if not n.startswith(("REAPI_", "BATCHRUNNER_", "XDG_", "COLUMNS", "PYTHON"))
    }
    ended = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=home,
        env={
            **ours,
            "HOME": str(home),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": os.getcwd(),
            "REAPI_BASE_URL": server,
            "LC_ALL": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    parts = ended.stdout.split(MARK)[2:-1]  # without what stood before the first command and after the last
    places = {
        str(tool): f"{HOME}/.venv/bin/batchrunner",
        f"{sys.executable} -P -m batchrunner": f"{HOME}/.venv/bin/batchrunner",
        str(Path(sys.executable).with_name("batchrunner")): f"{HOME}/.venv/bin/batchrunner",
        str(home): HOME,
        server: "https://reapi.ai",
    }
    played = []
    for command, text, code in zip(commands, parts[0::2], parts[1::2], strict=True):
        for here, there in places.items():
            text = text.replace(here, there)
        played.append(Played(command, int(code), text.splitlines()))
    return played


def same(said: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether the lines are those that a page promises, but for what differs each time."""
    pattern = "".join(".*" if line == "..." else re.escape(line) + "\n" for line in _plain(said))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _plain(printed)), re.DOTALL) is not None


def _plain(lines: Sequence[str]) -> list[str]:
    """Lines without what is different each time; of neighbours that come as they come, in alphabetical order."""
    plain: list[str] = []
    crowd: list[str] = []
    for line in [*lines, ""]:
        for pattern, word in VARIABLE:
            line = pattern.sub(word, line)
        line = line.rstrip()
        if CONCURRENT.match(line):
            crowd.append(line)
        else:
            plain += [*sorted(crowd), line]
            crowd = []
    return plain[:-1]


def complaints(played: Sequence[Played]) -> list[str]:
    """What did not go as the page says, a text each."""
    found = []
    for one, following in zip(played, [*played[1:], None], strict=True):
        told = following is not None and following.command.text == "echo $?"
        where = f"line {one.command.line}: $ {one.command.text}"
        if one.code and not told:
            found.append(f"{where}\nends with {one.code}:\n" + "\n".join(one.printed))
        elif not same(one.command.said, one.printed):
            found.append(
                f"{where}\nprints\n" + "\n".join(one.printed) + "\nand the page says\n" + "\n".join(one.command.said)
            )
    return found


@contextmanager
def simulator(folder: Path) -> Iterator[str]:
    """The address of a simulator that is the service while this lasts."""
    command = [sys.executable, *RUNNER, "simulate", "--median", "0.1", "--sigma", "0", "--clips", "tiny"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = next((line for line in process.stdout or () if "http://" in line), None)
            if address is None:
                raise RuntimeError("the simulator ended before it said where it is")
            yield "http://" + address.split("http://")[1].split()[0]
        finally:
            process.terminate()


def renew(page: Path) -> int:
    """Write what commands print now into `page`; returns how many said something else."""
    with tempfile.TemporaryDirectory() as name, simulator(Path(name)) as server:
        played = play(page, Path(name), server)
    lines = page.read_text("utf-8").splitlines()
    changed = 0
    for one in reversed(played):
        if not same(one.command.said, one.printed):
            start = one.command.line + one.command.text.count("\n")
            lines[start : start + len(one.command.said)] = [line.rstrip() for line in one.printed]
            changed += 1
    page.write_text("\n".join(lines) + "\n", "utf-8")
    return changed


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(f"{argument}: {renew(Path(argument))} renewed")
