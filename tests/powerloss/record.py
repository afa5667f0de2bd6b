"""Records the system calls of real runs with strace, and tells what they did to the files of one folder, in order.

Calls of different threads overlap. Each has the line where it began and the line where it ended: what it wrote may be
on the disk from its first line on, and a sync covers what had ended when the sync began.
"""

from __future__ import annotations

import functools
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CALLS = (
    "openat,open,creat,close,dup,dup2,dup3,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendmmsg,ftruncate,"
    "truncate,fallocate,copy_file_range,sendfile,splice,fsync,fdatasync,sync_file_range,sync,syncfs,msync,rename,"
    "renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fork,vfork,execve"
)
"""Every call by which a file, a name or a byte on the wire can come about."""

VOLATILE = ("-shm", ".lock")
"""Ends of names that mean nothing after a power cut: SQLite rebuilds the one, the other is a lock."""


@functools.cache
def why_not() -> str:
    """Why nothing can be recorded on this machine; empty where it can."""
    if shutil.which("strace") is None:
        return "power loss is not tested here: strace is not installed (apt-get install strace)"
    tried = subprocess.run(["strace", "-f", "-e", "trace=openat", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        return f"power loss is not tested here: strace may not trace ({tried.stderr.decode(errors='replace')[-200:]})"
    return ""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that succeeded, or was cut short by the end of its process.

    Attributes:
        name: of the call.
        words: its arguments as strace prints them.
        result: what it returned; None for a call that never did.
        began, ended: lines of the log; `ended` is infinite for a call that never returned.
    """

    name: str
    words: str
    result: str | None
    began: int
    ended: float


def record(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
    """Run `command` in `folder` under strace; its exit code (minus the signal's number where it was killed)."""
    ours = {n: v for n, v in os.environ.items() if not n.startswith(("REAPI_", "BATCHRUNNER_", "COV"))}
    home = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["strace", "-f", "-y", "-xx", "-s", str(1 << 20), "-o", str(log), "-e", f"trace={CALLS}", *command],
        cwd=folder,
        env=ours | home | dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode in {1, 70} or b"strace:" in done.stderr:
        sys.stderr.write(done.stderr.decode(errors="replace"))
    return done.returncode


# --- Reading the log -------------------------------------------------------------------------------------

_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+.*|\?.*)$")
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*)<unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+.*|\?.*)$")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FD = re.compile(r"(-?\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")


def calls(log: Path) -> list[Call]:
    """The calls of a log that did something, by the line where they began."""
    found: list[Call] = []
    open_calls: dict[str, tuple[str, str, int]] = {}
    with log.open() as lines:
        for number, line in enumerate(lines):
            if match := _BEGUN.match(line):
                pid, name, words = match.groups()
                open_calls[pid] = (name, words, number)
            elif match := _RESUMED.match(line):
                pid, name, words, result = match.groups()
                begun, first, began = open_calls.pop(pid)
                assert begun == name
                found.append(Call(name, first + words, result, began, number))
            elif match := _LINE.match(line):
                _, name, words, result = match.groups()
                found.append(Call(name, words, result, number, number))
            else:
                assert "---" in line or "+++" in line or "resumed" in line, f"not understood: {line[:200]}"
    found += [Call(name, words, "?", began, math.inf) for name, words, began in open_calls.values()]
    cut = [Call(c.name, c.words, None, c.began, math.inf) for c in found if str(c.result).startswith("?")]
    done = [c for c in found if not str(c.result).startswith(("-", "?"))]
    return sorted(done + cut, key=lambda c: c.began)


def _text(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def strings(words: str) -> list[bytes]:
    """Every quoted string of a call's arguments."""
    return [_text(s) for s in _BYTES.findall(words)]


def descriptor(words: str) -> tuple[int, str]:
    """The first descriptor of a call's arguments or result, and what it is open on."""
    match = _FD.search(words)
    if match is None:
        return -1, ""
    number = -1 if match[1] == "AT_FDCWD" else int(match[1])
    return number, _text(match[2]).decode()


# --- What was done ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Step:
    """Something that happened. `at` is when it may have its effect first, `ended` when it surely had."""

    at: float
    ended: float


@dataclass(slots=True)
class Entered(Step):
    """Names of a folder changed, all of them or none: the node that each stands for now, None for no node."""

    folder: int
    names: dict[str, int | None]
    makes: bool = False
    """Whether the node is a new folder."""


@dataclass(slots=True)
class Wrote(Step):
    node: int
    offset: int
    data: bytes


@dataclass(slots=True)
class Cut(Step):
    node: int
    size: int


@dataclass(slots=True)
class Synced(Step):
    """`at` is its end; it covers what had ended before `began`."""

    node: int
    began: float


@dataclass(slots=True)
class Said(Step):
    """Written to stdout."""

    text: bytes


@dataclass(slots=True)
class Sent(Step):
    """Written to a socket."""

    data: bytes


ROOT_NODE = 0


@dataclass(slots=True)
class _File:
    node: int
    place: int = 0


@dataclass(slots=True)
class Tape:
    """What several runs after each other did to a folder. The page cache outlives a process; descriptors don't."""

    folder: str
    steps: list[Step] = field(default_factory=list)
    _nodes: dict[str, int] = field(default_factory=dict)
    _next: int = 1
    _base: float = 0.0

    def add(self, log: Path) -> None:
        """Add the log of another run. To be called before anything else changes the folder."""
        self._nodes.setdefault(self.folder, ROOT_NODE)
        reader = _Reader(self)
        timeline: list[tuple[float, int, Call, bool]] = []
        found = calls(log)
        last = 1 + max(int(c.began if c.result is None else c.ended) for c in found)
        for order, call in enumerate(found):
            if call.result is not None:
                timeline += [(call.began, order, call, True), (call.ended, order, call, False)]
            elif reader.was_done(call):
                timeline.append((call.began, order, replace(call, ended=last), True))
        for _, _, call, begins in sorted(timeline, key=lambda t: (t[0], not t[3], t[1])):
            (reader.begin if begins else reader.end)(call)
        self.steps.sort(key=lambda s: s.at)
        self._base += last + 1.0

    def _inside(self, path: str) -> bool:
        return (path == self.folder or path.startswith(self.folder + "/")) and not path.endswith(VOLATILE)


class _Reader:
    """Reads one run's log onto a tape."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._files: dict[int, _File] = {}

    def _times(self, call: Call) -> tuple[float, float]:
        return self._tape._base + call.began, self._tape._base + call.ended

    def _path(self, raw: bytes) -> str:
        return os.path.normpath(os.path.join(self._tape.folder, raw.decode()))

    def _enter(self, call: Call, changes: Mapping[str, int | None], makes: bool = False) -> None:
        """Note changes of names, all in one folder."""
        tape = self._tape
        folders = {os.path.dirname(path) for path in changes}
        assert len(folders) == 1, f"not modelled: {call.name} between folders"
        for path, node in changes.items():
            if node is None:
                tape._nodes.pop(path, None)
            else:
                tape._nodes[path] = node
        folder = tape._nodes[folders.pop()]
        tape.steps.append(
            Entered(*self._times(call), folder, {os.path.basename(p): n for p, n in changes.items()}, makes)
        )

    def _new(self) -> int:
        self._tape._next += 1
        return self._tape._next - 1

    def was_done(self, call: Call) -> bool:
        """Whether a call that a kill cut short had its effect: only the folder knows."""
        words = strings(call.words)
        match call.name:
            case "pwrite64":
                place = int(call.words.rsplit(",", 1)[1])
                with open(descriptor(call.words)[1], "rb") as file:
                    file.seek(place)
                    return file.read(len(words[0])) == words[0]
            case "write" | "sendto" | "sendmsg" | "writev":
                path = descriptor(call.words)[1]
                if not self._tape._inside(path):
                    return True  # a byte may have left
                assert Path(path).read_bytes().endswith(words[0]), f"half a write to {path}"
                return True
            case "unlink" | "unlinkat" | "rmdir":
                return not os.path.lexists(self._path(words[0]))
            case "mkdir" | "link" | "linkat" | "rename" | "renameat" | "renameat2":
                return os.path.lexists(self._path(words[-1]))
            case "openat" | "open" | "creat":
                path = self._path(words[0])
                makes = "O_CREAT" in call.words and self._tape._inside(path) and path not in self._tape._nodes
                return makes and os.path.lexists(path)
        return False

    # --- Where a call begins: what may be on the disk from now on ----------------------------------------

    def begin(self, call: Call) -> None:
        tape, (at, ended) = self._tape, self._times(call)
        match call.name:
            case "write" | "writev" | "sendto" | "sendmsg" | "pwrite64":
                self._begin_write(call)
            case "close":
                self._files.pop(descriptor(call.words)[0], None)
            case "mkdir" | "unlink" | "unlinkat" | "rmdir" | "link" | "linkat" | "rename" | "renameat" | "renameat2":
                self._begin_naming(call)
            case "ftruncate":
                file = self._files.get(descriptor(call.words)[0])
                if file is not None:
                    tape.steps.append(Cut(at, ended, file.node, int(call.words.rsplit(",", 1)[1])))
            case "openat" | "open" | "creat":
                if call.result is None:  # it made a file, and nobody lived to hold it
                    self._enter(call, {self._path(strings(call.words)[0]): self._new()})
            case "fsync" | "fdatasync":
                pass
            case _:
                self._not_modelled(call)

    def _begin_naming(self, call: Call) -> None:
        tape = self._tape
        first, *more = (self._path(s) for s in strings(call.words))
        match call.name:
            case "mkdir" if tape._inside(first):
                self._enter(call, {first: self._new()}, makes=True)
            case "unlink" | "unlinkat" | "rmdir" if first in tape._nodes:
                self._enter(call, {first: None})
            case "link" | "linkat" if tape._inside(more[0]):
                self._enter(call, {more[0]: tape._nodes[first]})
            case "rename" | "renameat" | "renameat2" if tape._inside(more[0]):
                self._enter(call, {first: None, more[0]: tape._nodes[first]})

    def _not_modelled(self, call: Call) -> None:
        touched = [descriptor(call.words)[1], *(self._path(s) for s in strings(call.words) if b"\0" not in s)]
        concerns = any(self._tape._inside(path) for path in touched if path.startswith("/"))
        assert not concerns or call.name == "execve", f"not modelled: {call.name}({call.words[:200]}"

    def _begin_write(self, call: Call) -> None:
        number, path = descriptor(call.words)
        at, ended = self._times(call)
        data = b"".join(strings(call.words))
        file = self._files.get(number)
        if file is not None:
            assert call.name in {"write", "pwrite64"}, f"not modelled: {call.name} to a file"
            written = len(data) if call.result is None else int(call.result)
            offset = int(call.words.rsplit(",", 1)[1]) if call.name == "pwrite64" else file.place
            if call.name == "write":
                file.place += written
            self._tape.steps.append(Wrote(at, ended, file.node, offset, data[:written]))
        elif number == 1:
            self._tape.steps.append(Said(at, ended, data))
        elif path.startswith("socket:"):
            self._tape.steps.append(Sent(at, ended, data))

    # --- Where a call ends: descriptors, and what is durable now -----------------------------------------

    def end(self, call: Call) -> None:
        match call.name:
            case "openat" | "open" | "creat":
                self._opened(call)
            case "fsync" | "fdatasync":
                number, path = descriptor(call.words)
                file = self._files.get(number)
                node = file.node if file is not None else self._tape._nodes.get(path)
                if node is not None:
                    at, ended = self._times(call)
                    self._tape.steps.append(Synced(ended, ended, node, at))
            case "dup" | "dup2" | "dup3":
                assert descriptor(call.words)[0] not in self._files, "not modelled: a file's descriptor is copied"

    def _opened(self, call: Call) -> None:
        assert call.result is not None
        number, path = descriptor(call.result)
        tape = self._tape
        self._files.pop(number, None)
        if not tape._inside(path) or "O_DIRECTORY" in call.words:
            return
        writes = "O_WRONLY" in call.words or "O_RDWR" in call.words
        if path not in tape._nodes:
            if "O_CREAT" not in call.words:
                return  # it was there before, and is only read
            self._enter(call, {path: self._new()})
        assert "O_APPEND" not in call.words, f"not modelled: {path} is appended to"
        if writes or "O_RDONLY" in call.words:
            self._files[number] = _File(tape._nodes[path])
        if "O_TRUNC" in call.words:
            tape.steps.append(Cut(*self._times(call), tape._nodes[path], 0))
