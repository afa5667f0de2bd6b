"""Giving a file its final name: whole, durable, and never over another one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchrunner.engine import rename
from batchrunner.engine.files import (
    Occupied,
    Placed,
    UnsafePath,
    find_placed,
    free_bytes,
    part_path,
    placing,
    precheck,
    sidecar_path,
    strays,
)
from batchrunner.engine.rename import give_name
from batchrunner.engine.stores import FolderStore
from batchrunner.providers.disk import Steps, at_once
from batchrunner.providers.folders import ensure_folder

DATA = b"a film" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
POINTS = ("place.sidecar", "place.renamed", "place.folder_synced")


def facts(task_id: str = "task_1", data: bytes = DATA) -> dict[str, Any]:
    return {"task_id": task_id, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "prompt": "ä\x1b"}


class Died(BaseException):
    """The process, at this point."""


class Case:
    """An output folder with a part in it."""

    def __init__(self, folder: Path, name: str = "sub/corgi-1.mp4") -> None:
        self.root = folder / "out"
        self.target = self.root / name
        self.part = part_path(self.target)
        self.download()

    def download(self, data: bytes = DATA) -> None:
        ensure_folder(self.part.parent, self.root)
        self.part.unlink(missing_ok=True)
        self.part.write_bytes(data)

    def place(self, task_id: str = "task_1", crash: Callable[[str], None] | None = None, **more: Any) -> Placed:
        crash = crash or (lambda _: None)
        return at_once(placing(self.part, self.target, self.root, facts(task_id), crash=crash, **more))

    def names(self) -> set[str]:
        return {p.name for p in self.target.parent.iterdir()}

    def check(self) -> None:
        assert self.target.read_bytes() == DATA
        assert json.loads(sidecar_path(self.target).read_bytes()) == facts()
        assert self.names() == {self.target.name, self.target.name + ".json"}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_place(case: Case) -> None:
    seen: list[str] = []
    assert case.place(crash=seen.append) == Placed("sub/corgi-1.mp4", DIGEST, len(DATA))
    assert tuple(seen) == POINTS
    case.check()


def test_again_it_is_recognised(case: Case) -> None:
    case.place()
    case.download()
    assert case.place() == Placed("sub/corgi-1.mp4", DIGEST, len(DATA), already=True)
    case.check()
    assert case.place().already, "also when there is no part"
    assert find_placed(case.target, case.root, "task_1") == Placed("sub/corgi-1.mp4", DIGEST, len(DATA), already=True)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("part_lost", [False, True])
def test_a_death_at_any_point_is_made_good(case: Case, point: str, part_lost: bool) -> None:
    def crash(name: str) -> None:
        if name == point:
            raise Died

    with pytest.raises(Died):
        case.place(crash=crash)
    found = find_placed(case.target, case.root, "task_1")
    assert (found is not None) == (point != "place.sidecar")
    if found is not None:
        case.check()
    if part_lost:
        case.download()
    assert case.place().path == "sub/corgi-1.mp4"
    case.check()


SYSTEM_CALLS = ["link", "unlink", "fsync", "open", "replace", "rename", "lstat"]


@pytest.mark.parametrize("call", SYSTEM_CALLS)
@pytest.mark.parametrize("after", [False, True])
def test_a_death_or_an_error_at_any_system_call_is_made_good(
    case: Case, monkeypatch: pytest.MonkeyPatch, call: str, after: bool
) -> None:
    """The n-th call of each kind fails, or the process dies just after it; then everything is tried again."""
    real = getattr(os, call)
    for nth in range(1, 12):
        for error in (OSError(errno.EIO, "EIO"), OSError(errno.ENOSPC, "ENOSPC"), Died()):
            count = 0

            def broken(*args: Any, _nth: int = nth, _error: BaseException = error, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == _nth and not after:
                    raise _error
                result = real(*args, **kwargs)
                if count == _nth and call != "open":
                    raise _error
                return result

            with monkeypatch.context() as patch:
                patch.setattr(os, call, broken)
                with contextlib.suppress(OSError, Died, Occupied):
                    case.place()
            if case.target.exists():
                assert case.target.read_bytes() == DATA, "what has its final name is complete"
            if sidecar_path(case.target).exists():
                assert json.loads(sidecar_path(case.target).read_bytes()) == facts()
            case.download()
            assert case.place().sha256 == DIGEST
            case.check()
            for path in case.target.parent.iterdir():
                path.unlink()
            case.download()


def test_what_is_durable_before_what(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sidecar's bytes before its name; both names before the folder is synced; that before the part goes."""
    steps: list[str] = []
    link, unlink, fsync = os.link, os.unlink, os.fsync

    def spy_fsync(descriptor: int) -> None:
        steps.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def spy_link(source: Path, target: Path, **options: Any) -> None:
        steps.append("name " + target.name)
        link(source, target, **options)

    def spy_unlink(path: Path) -> None:
        if path.exists():
            steps.append("drop " + path.name)
        unlink(path)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "link", spy_link)
    monkeypatch.setattr(os, "unlink", spy_unlink)
    case.place(crash=steps.append)
    temporary = steps[0].removeprefix("sync ")
    assert temporary.startswith(".batchrunner-")
    assert steps == [
        f"sync {temporary}",
        "name corgi-1.mp4.json",
        f"drop {temporary}",
        "place.sidecar",
        "name corgi-1.mp4",
        "place.renamed",
        "sync sub",
        "place.folder_synced",
        "drop corgi-1.mp4.part",
    ]


def test_another_file_is_never_overwritten(case: Case) -> None:
    case.target.write_bytes(b"mine")
    with pytest.raises(Occupied) as caught:
        case.place()
    assert caught.value.path == case.target
    assert case.target.read_bytes() == b"mine"
    assert case.part.read_bytes() == DATA
    assert case.names() == {"corgi-1.mp4", "corgi-1.mp4.part"}
    assert precheck(case.target) is not None


@pytest.mark.parametrize(
    "content", [b"", b"mine", b"[]", b'{"task_id": "task_2"}', b'{"task_id": 1}', b"\xff", b"[" * 99999]
)
def test_another_sidecar_is_never_overwritten(case: Case, content: bytes) -> None:
    sidecar_path(case.target).write_bytes(content)
    with pytest.raises(Occupied) as caught:
        case.place()
    assert caught.value.path == sidecar_path(case.target)
    assert sidecar_path(case.target).read_bytes() == content
    assert not case.target.exists()
    assert precheck(case.target, {"task_1"}) is not None


def test_the_orphaned_sidecar_of_an_earlier_task_of_the_job_is_replaced(case: Case) -> None:
    sidecar_path(case.target).write_text(json.dumps(facts("task_0")))
    assert precheck(case.target, {"task_0"}) is None
    assert case.place(replaces={"task_0"}).path == "sub/corgi-1.mp4"
    case.check()


def test_the_file_of_an_earlier_task_is_not(case: Case) -> None:
    case.place("task_0")
    case.download(b"another film")
    with pytest.raises(Occupied):
        at_once(placing(case.part, case.target, case.root, facts("task_1", b"another film"), replaces={"task_0"}))
    assert case.target.read_bytes() == DATA
    assert precheck(case.target, {"task_0"}) is not None


def test_a_file_that_was_changed_since_is_not_ours_any_more(case: Case) -> None:
    case.place()
    case.target.write_bytes(b"edited")
    assert find_placed(case.target, case.root, "task_1") is None
    case.download()
    with pytest.raises(Occupied):
        case.place()
    assert case.target.read_bytes() == b"edited"


def test_the_same_bytes_without_a_sidecar_are_adopted(case: Case) -> None:
    """A power cut may keep the file's name and lose the sidecar's."""
    case.target.write_bytes(DATA)
    assert find_placed(case.target, case.root, "task_1") is None
    assert case.place().already
    case.check()


def test_a_file_that_appears_at_the_last_moment(case: Case) -> None:
    def crash(point: str) -> None:
        if point == "place.sidecar":
            case.target.write_bytes(b"mine")

    with pytest.raises(Occupied):
        case.place(crash=crash)
    assert case.target.read_bytes() == b"mine"


# --- Several writers -------------------------------------------------------------------------------------


class Writer:
    """A worker with the same output in hand as others."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.target = root / "clip.mp4"
        self.part = part_path(self.target, name)
        self.crossed: list[str] = []

    def fetch(self, data: bytes = DATA) -> None:
        self.part.parent.mkdir(exist_ok=True)
        self.part.write_bytes(data)

    def placing(self) -> Steps[Placed]:
        return placing(self.part, self.target, self.root, facts(), writer=self.name, crash=self.crossed.append)


@pytest.mark.parametrize("other", [".w2", ".w11", ""])
@pytest.mark.parametrize("steps", range(4))
def test_one_that_was_taken_for_dead_goes_on_beside_another(tmp_path: Path, steps: int, other: str) -> None:
    """It wakes at any step of its placing, when the other has placed all, or has the first bytes only."""
    late, peer = Writer(tmp_path / "out", ".w1"), Writer(tmp_path / "out", other)
    late.fetch()
    woken = late.placing()
    done = next((end for _ in range(steps) if (end := _step(woken)) is not None), None)
    peer.fetch(DATA[:7])
    if peer.target.exists():
        assert peer.target.read_bytes() == DATA, "what has the final name is whole"
    peer.fetch()
    placed = at_once(peer.placing())
    assert (placed.path, placed.already) == ("clip.mp4", "place.renamed" in late.crossed)
    FolderStore(late.root, late.name).tidy(["clip.mp4"])  # of others: the peer's is gone already
    FolderStore(peer.root, peer.name).tidy(["clip.mp4"])
    while done is None:
        done = _step(woken)
    assert (done.path, done.sha256) == ("clip.mp4", DIGEST)
    assert peer.target.read_bytes() == DATA
    assert json.loads(sidecar_path(peer.target).read_bytes()) == facts()
    assert {p.name for p in peer.root.iterdir()} == {"clip.mp4", "clip.mp4.json"}


def _step(steps: Steps[Placed]) -> Placed | None:
    try:
        next(steps)
    except StopIteration as end:
        placed: Placed = end.value
        return placed
    return None


def test_what_others_have_left_is_known_and_nothing_else_is(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    target = root / "clip.mp4"
    theirs = {part_path(target, ".w2"), part_path(target, ".w11"), part_path(target)}
    kept = {part_path(target, ".w1"), root / "clip.mp4.party.mp4", part_path(root / "other.mp4", ".w2"), target}
    for path in theirs | kept:
        path.write_bytes(b"x")
    assert set(strays(target, ".w1")) == theirs
    FolderStore(root, ".w1").tidy(["clip.mp4"])
    assert set(root.iterdir()) == kept
    FolderStore(root).tidy(["clip.mp4"])
    assert set(root.iterdir()) == kept, "who is alone has no others"


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link", "fifo", "link to the part"])
def test_a_target_that_is_no_file(case: Case, tmp_path: Path, kind: str) -> None:
    match kind:
        case "folder":
            case.target.mkdir()
        case "dangling link":
            case.target.symlink_to(tmp_path / "nowhere")
        case "link":
            (tmp_path / "elsewhere").write_bytes(DATA)
            case.target.symlink_to(tmp_path / "elsewhere")
        case "fifo":
            os.mkfifo(case.target)
        case _:
            case.target.symlink_to(case.part)
    with pytest.raises(Occupied):
        case.place()
    assert not (tmp_path / "nowhere").exists()
    assert case.part.read_bytes() == DATA


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_a_sidecar_that_is_no_file(case: Case, tmp_path: Path, kind: str) -> None:
    sidecar = sidecar_path(case.target)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(facts()))
    match kind:
        case "folder":
            sidecar.mkdir()
        case "link":
            sidecar.symlink_to(other)
        case _:
            os.mkfifo(sidecar)
    with pytest.raises(Occupied):
        case.place()


def test_a_part_that_is_gone_or_changed(case: Case) -> None:
    case.part.write_bytes(b"shorter")
    with pytest.raises(OSError, match="changed"):
        case.place()
    case.part.unlink()
    with pytest.raises(FileNotFoundError):
        case.place()
    case.part.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="changed"):
        case.place()
    assert not case.target.exists()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_links(case: Case, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(code, "no links")

    monkeypatch.setattr(os, "link", no_link)
    case.place()
    case.check()
    case.download()
    case.target.unlink()
    case.target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        give_name(case.part, case.target)
    assert case.target.read_bytes() == b"mine"


@pytest.mark.parametrize("missing", ["symbol", "EINVAL"])
def test_without_links_and_without_renameat2(case: Case, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links")

    def fails(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(rename, "_libc_renameat2", lambda: None if missing == "symbol" else fails)
    case.place()
    case.check()
    case.download()
    case.target.unlink()
    case.target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        give_name(case.part, case.target)
    assert case.target.read_bytes() == b"mine"


def test_a_full_disk_leaves_no_half_sidecar(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        case.place()
    assert not sidecar_path(case.target).exists()
    assert not case.target.exists()


# --- Folders ---------------------------------------------------------------------------------------------


def test_folders_are_made_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert ensure_folder(tmp_path / "out/a/b", tmp_path / "out") == tmp_path / "out/a/b"
    assert [name for name in synced if not name.startswith("..")] == [".", "out", "out/a"]
    synced.clear()
    ensure_folder(tmp_path / "out/a/b", tmp_path / "out")
    assert synced == []


def test_a_folder_that_is_found_is_made_durable_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its maker may have died before it could sync the folder above."""
    (tmp_path / "out/a").mkdir(parents=True)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))

    ensure_folder(tmp_path / "out/a", tmp_path / "out")
    assert {str(tmp_path), str(tmp_path / "out"), "/"} <= set(synced)
    synced.clear()
    ensure_folder(tmp_path / "out/a", tmp_path / "out")
    assert synced == []


@pytest.mark.parametrize("folder", ["..", "../x", "a/../../x", "a/..", "/tmp", "/"])
def test_folders_outside(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "out"
    with pytest.raises(UnsafePath):
        ensure_folder(root / folder, root)
    assert not (tmp_path / "x").exists()


def test_a_neighbour_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    with pytest.raises(UnsafePath):
        ensure_folder(tmp_path / "out-2", tmp_path / "out")


@pytest.mark.parametrize("link_to", ["../elsewhere", "..", "/", "../missing"])
def test_no_link_is_followed_out(tmp_path: Path, link_to: str) -> None:
    root = tmp_path / "out"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "a").symlink_to(link_to)
    for folder in ("a", "a/b", "a/elsewhere"):
        with pytest.raises(UnsafePath):
            ensure_folder(root / folder, root)
    assert not (tmp_path / "missing").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    part = root / "x.part"
    part.write_bytes(DATA)
    with pytest.raises(UnsafePath):
        at_once(placing(part, root / "a/x.mp4", root, facts()))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_within_is_fine(tmp_path: Path) -> None:
    root = tmp_path / "out"
    (root / "real").mkdir(parents=True)
    (root / "a").symlink_to("real")
    assert ensure_folder(root / "a/b", root) == root / "real/b"
    part = root / "real/x.mp4.part"
    part.write_bytes(DATA)
    assert at_once(placing(root / "a/x.mp4.part", root / "a/x.mp4", root, facts())).path == "real/x.mp4"


def test_the_output_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    root = tmp_path / "out"
    root.symlink_to(tmp_path / "disk")
    assert ensure_folder(root / "a", root) == tmp_path / "disk/a"
    (root / "x.part").write_bytes(DATA)
    assert at_once(placing(root / "x.part", root / "x.mp4", root, facts())).path == "x.mp4"
    assert (tmp_path / "disk/x.mp4").read_bytes() == DATA


def test_a_loop_of_links(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises((UnsafePath, OSError)):
        ensure_folder(root / "a/c", root)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    (root / "a").write_bytes(b"")
    for folder in ("a", "a/b"):
        with pytest.raises((UnsafePath, NotADirectoryError)):
            ensure_folder(root / folder, root)


# --- Small ones ------------------------------------------------------------------------------------------


def test_free_bytes(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not/there/yet") > 0


def test_precheck_of_a_free_name(case: Case) -> None:
    assert precheck(case.target) is None
    assert precheck(case.root / "not/there.mp4") is None


def test_a_name_of_any_length(tmp_path: Path) -> None:
    case = Case(tmp_path, "c" * 246 + ".mp4")
    case.place()
    case.check()
