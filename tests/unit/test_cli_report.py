"""`report`: the file, whatever happened in the night. How it looks and behaves is for tests/browser."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import shlex
import sys
import webbrowser
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from batchrunner.core import events as e
from batchrunner.core.job import JobSpec, Output, Problem, State
from batchrunner.core.media import Facts, Kept
from batchrunner.core.text import visible
from batchrunner.engine.clock import wall
from batchrunner.report import commands, records
from batchrunner.simulator import clips
from tests.cli_support import call, make_ledger
from tests.support import FakeClock, open_ledger, path_to, spec

BOMB = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`\u202eevil\u200b\x1b[2J javascript:alert(3) <!--"
)


@dataclass
class Read(HTMLParser):
    """A page as a parser sees it."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    scripts: list[tuple[dict[str, str | None], str]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and self.scripts[-1][1] == "":
            self.scripts[-1] = (self.scripts[-1][0], data)
        else:
            self.text += data

    @property
    def data(self) -> Any:
        return next(json.loads(text) for attrs, text in self.scripts if attrs.get("id") == "data")


def read(path: Path) -> Read:
    page = Read()
    page.feed(path.read_text("utf-8"))
    page.close()
    return page


def posters_of(page: Read) -> list[dict[str, str]]:
    """sha256 -> base64, an element for each hundred jobs."""
    return [json.loads(text) for attrs, text in page.scripts if attrs.get("class") == "posters"]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHRUNNER_DB", raising=False)
    folder = tmp_path / "out put"
    folder.mkdir()
    return folder


def stored(path: Path, data: bytes | None = None) -> tuple[e.Event, ...]:
    """The events of a job whose clip is at `path`."""
    clip = data if data is not None else clips.clip(clips.Card("a", "b", "c", "d", 320, 180, 1))
    path.write_bytes(clip)
    task = "task_" + hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    end = e.Stored(Output(str(path), hashlib.sha256(clip).hexdigest(), len(clip)))
    return (*path_to(State.DOWNLOADING, task), end)


def report(out: Path, *words: str) -> Read:
    ran = call("report", "night", *words)
    assert (ran.code, ran.err) == (0, "")
    return read(out / "report.html")


def test_what_is_in_the_page(out: Path) -> None:
    make_ledger(
        out.parent / "batchrunner.db",
        [
            (spec("dog", tags=["hero"]), stored(out / "dog #1 50%.mp4")),
            (spec("cat"), path_to(State.UNCONFIRMED)),
            (spec("cow"), path_to(State.FAILED)),
            (spec("owl"), ()),
        ],
        output_dir=str(out),
    )
    page = report(out)
    assert "1 of 4 clips is here." in page.text
    assert "1 may have been paid for and needs your word, 1 failed, 1 still to be done." in page.text
    db = f"--db {shlex.quote(str(out.parent / 'batchrunner.db'))}"
    for line in (
        f"batchrunner resolve cat-1 --task-id TASK_ID {db}",
        f"batchrunner resolve cat-1 --resubmit {db}",
        f"batchrunner resolve cat-1 --abandon {db}",
        f"batchrunner retry night --kind rejected {db}",
        f"batchrunner resume night {db}",
        f"batchrunner report night {db}",
    ):
        assert line in page.text
        assert call(*shlex.split(line)[1:2], "--help").code == 0
    assert "req_2" in page.text
    assert page.text.index("Unconfirmed: these need your word") < page.text.index("Failures, by cause")
    assert [job["state"] for job in page.data["jobs"]] == ["succeeded", "unconfirmed", "failed", "pending"]
    dog = page.data["jobs"][0]
    assert dog["clips"][0]["url"] == "dog%20%231%2050%25.mp4"
    assert (dog["spent"], dog["est"], dog["tags"], dog["clips"][0]["show"]) == (630, 630, ["hero"], "video")
    assert base64.b64decode(posters_of(page)[0][dog["sha"]]).startswith(b"RIFF")


def test_the_commands_of_the_page_work(out: Path) -> None:
    """Old revisions, and keys that stand in two batches, too."""
    db = out.parent / "batchrunner.db"
    doubt = path_to(State.UNCONFIRMED)
    make_ledger(db, [(spec("cat"), doubt)], output_dir=str(out))
    make_ledger(db, [(spec("cat", prompt="another"), doubt)], output_dir=str(out))
    make_ledger(db, [(spec("cat"), ())], name="day", output_dir="/elsewhere")
    page = report(out)
    lines = re.findall(r"batchrunner resolve \S+ --revision \d --abandon --db [\w/.-]+\.db", page.text)
    assert lines == [
        f"batchrunner resolve night/cat-1 --revision 2 --abandon --db {shlex.quote(str(db))}",
        f"batchrunner resolve night/cat-1 --revision 1 --abandon --db {shlex.quote(str(db))}",
    ]
    for line in lines:
        assert call(*shlex.split(line)[1:]).code == 0
    assert "Unconfirmed: these" not in report(out).text


def test_nothing_that_others_wrote_is_markup(out: Path) -> None:
    """Of a hostile page the elements are exactly those of a harmless one, and the text is there, visible."""

    def jobs(text: str) -> list[tuple[JobSpec, tuple[e.Event, ...]]]:
        problem = Problem(text, "code", 400, "req")
        return [
            (spec("a", prompt=text, tags=[text], model=text, matrix={"m": 1}), (e.Claimed(), e.Rejected(problem))),
            (spec("b", prompt=text), (e.Claimed(), e.Ambiguous(problem))),
            (spec("c", prompt=text * 2000), stored(out / f"{text[:30].replace('/', '')}.mp4", b"no clip")),
        ]

    make_ledger(out.parent / "a.db", jobs("harmless"), output_dir=str(out))
    make_ledger(out.parent / "b.db", jobs(BOMB), output_dir=str(out))
    harmless, hostile = report(out, "--db", "a.db"), report(out, "--db", "b.db")
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    assert visible(BOMB) in hostile.text
    assert not any(attr.startswith("on") or attr == "style" for _, attrs in hostile.tags for attr in attrs)
    text = (out / "report.html").read_text("utf-8")
    assert not set(text) & set("\u202e\u200b\x1b")
    for attrs, script in hostile.scripts:
        if attrs.get("type"):
            assert "<" not in script
    assert len(hostile.data["prompts"][-1]) == records.LONGEST


def test_the_policy_knows_the_page_s_own_script_and_style(out: Path) -> None:
    make_ledger(out.parent / "batchrunner.db", [(spec("dog"), ())], output_dir=str(out))
    page = report(out)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    ours = [text for attrs, text in page.scripts if not attrs]
    assert len(ours) == 2
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in ours]
    assert policy.split("; ") == [
        "default-src 'none'",
        f"script-src {hashes[1]}",
        f"style-src {hashes[0]}",
        "img-src 'self' file: data: blob:",
        "media-src 'self' file: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    ]
    assert "</" not in ours[0] + ours[1]
    assert not [a for tag, a in page.tags if tag in ("script", "link", "iframe") and ("src" in a or "href" in a)]


def test_one_file_to_mail(out: Path) -> None:
    data = os.urandom(5_000_000)
    make_ledger(
        out.parent / "batchrunner.db",
        [(spec("dog"), stored(out / "dog.mp4", data)), (spec("cat", tags=["no"]), stored(out / "cat.mp4"))],
        output_dir=str(out),
    )
    page = report(out, "--only", "dog", "--embed")
    clip = [(attrs, text) for attrs, text in page.scripts if attrs.get("class") == "clip"]
    assert len(clip) == 1
    assert clip[0][0] == {"type": "text/plain", "class": "clip", "data-clip": "0.0", "data-type": "video/mp4"}
    assert base64.b64decode(clip[0][1], validate=True) == data
    assert "only --only dog" in page.text
    assert "batchrunner report night --only dog --embed --db" in page.text
    assert "spent      " not in page.text


def test_too_much_to_mail(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ledger(out.parent / "batchrunner.db", [(spec("dog"), stored(out / "dog.mp4"))], output_dir=str(out))
    monkeypatch.setattr("batchrunner.cli.report.MAILABLE", 1000)
    ran = call("report", "night", "--embed")
    assert (ran.code, ran.err) == (0, "It has 0 MB; many mail servers take no more than 0\n")
    monkeypatch.setattr("batchrunner.report.make.EMBEDDABLE", 1000)
    ran = call("report", "night", "--embed")
    assert ran.code == 2
    assert "choose fewer with --tag" in ran.err


def test_files_that_are_gone_or_not_what_they_were(out: Path) -> None:
    jobs = [(spec(name), stored(out / f"{name}.mp4")) for name in ("gone", "cut", "link", "broken", "fine")]
    make_ledger(out.parent / "batchrunner.db", jobs, output_dir=str(out))
    (out / "gone.mp4").unlink()
    (out / "cut.mp4").write_bytes(b"short")
    (out / "link.mp4").rename(out / "elsewhere")
    (out / "link.mp4").symlink_to("elsewhere")
    (out / "broken.mp4").write_bytes(bytes((out / "broken.mp4").stat().st_size))
    ran = call("report", "night", "--embed")
    assert (ran.code, ran.err) == (0, "warning: 3 files missing or changed since stored; the page says which\n")
    page = read(out / "report.html")
    assert "3 files are missing or not what was stored" in page.text
    assert {job["shot"]: job["clips"][0].get("problem") for job in page.data["jobs"]} == {
        "gone": "The file is missing",
        "cut": "The file has changed since it was stored",
        "link": "There is something else in the file's place",
        "broken": None,
        "fine": None,
    }
    assert [a["data-clip"] for a, _ in page.scripts if a.get("class") == "clip"] == ["3.0", "4.0"]


def test_stills_of_pictures_and_of_tall_clips(out: Path) -> None:
    jobs = []
    for name, card in (
        ("a.png", clips.Card("a", "b", "c", "d", 320, 180)),
        ("b.mp4", clips.Card("a", "b", "c", "d", 180, 320, 1)),
    ):
        jobs.append((spec(name[0]), stored(out / name, clips.clip(card) if card.seconds else clips.still(card))))
    make_ledger(out.parent / "batchrunner.db", jobs, output_dir=str(out))
    stills = [Image.open(io.BytesIO(base64.b64decode(still))) for still in posters_of(report(out))[0].values()]
    assert [(still.format, still.size) for still in stills] == [("WEBP", (320, 180)), ("WEBP", (180, 320))]


def test_no_poster_without_pyav(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ledger(out.parent / "batchrunner.db", [(spec("dog"), stored(out / "dog.mp4"))], output_dir=str(out))
    monkeypatch.setitem(sys.modules, "av", None)
    for words in ([], ["--no-stills"]):
        page = report(out, *words)
        assert page.data["jobs"][0]["clips"][0]["url"] == "dog.mp4"
        assert posters_of(page) == [{}]


def test_stills_are_taken_over_from_the_page_that_is_replaced(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [(spec(name), stored(out / f"{name}.mp4", data)) for name, data in (("dog", None), ("cat", b"no clip"))]
    make_ledger(out.parent / "batchrunner.db", jobs, output_dir=str(out))
    before = posters_of(report(out))
    assert len(before[0]) == 1
    monkeypatch.setitem(sys.modules, "av", None)
    assert posters_of(report(out)) == before
    page = (out / "report.html").read_text("utf-8")
    still = next(iter(before[0].values()))
    for damaged in ('"><b>', "", 'x" onerror="'):
        (out / "report.html").write_text(page.replace(still, damaged), "utf-8")
        assert posters_of(report(out)) == [{}]
    (out / "report.html").write_text(page.replace('data-width="320"', 'data-width="100"'), "utf-8")
    assert posters_of(report(out)) == [{}]
    (out / "report.html").write_bytes(page.split("posters")[0].encode() + b'posters" data-width="320">{"\xff')
    assert posters_of(report(out)) == [{}]


def test_a_batch_without_jobs(out: Path) -> None:
    make_ledger(out.parent / "batchrunner.db", [], output_dir=str(out))
    assert "This batch has no jobs." in report(out).text
    make_ledger(out.parent / "batchrunner.db", [(spec("dog"), ())], output_dir=str(out))
    assert "No job was selected." in report(out, "--only", "cat").text


def test_where_it_is_written(out: Path, tmp_path: Path) -> None:
    new = tmp_path / "not" / "there yet"
    make_ledger(tmp_path / "batchrunner.db", [(spec("dog"), stored(out / "dog.mp4"))], output_dir=str(new))
    assert call("report", "night").out == f"1 job in {new / 'report.html'}\n"
    assert read(new / "report.html").data["jobs"][0]["clips"][0]["url"] == "../../out%20put/dog.mp4"
    (tmp_path / "sub").mkdir()
    assert call("report", "night", "--out", "sub/x.html").code == 0
    assert read(tmp_path / "sub/x.html").data["jobs"][0]["clips"][0]["url"] == "../out%20put/dog.mp4"
    ran = call("report", "night", "--out", "nowhere/x.html")
    assert (ran.code, ran.err) == (
        2,
        f"error: can't write {tmp_path / 'nowhere' / 'x.html'}: No such file or directory\n",
    )
    assert call("report", "night", "--out", "sub").code == 2
    assert call("report", "nigt").code == 2
    assert call("report", "night", "--db", "none.db").code == 2


def test_several_outputs_and_what_is_not_as_ordered(out: Path) -> None:
    """All files of a task are there to see and to mail; a difference from what was ordered is said at three places."""
    kept = []
    for number, name in enumerate(("a.png", "b.png", "last.png")):
        (out / name).write_bytes(name.encode())
        output = Output(str(out / name), hashlib.sha256(name.encode()).hexdigest(), len(name))
        facts = Facts(5.04, 640, 360, "h264", 24.0, True)
        warnings = ("640x360, ordered 720p",) if number == 0 else ()
        kept.append(Kept((number + 1) % 3, "image", "https://x.test/", output, facts, warnings))
    first = kept[0].output
    assert first is not None
    events = (*path_to(State.DOWNLOADING), e.Stored(first, tuple(kept)))
    make_ledger(out.parent / "batchrunner.db", [(spec("dog"), events), (spec("cat"), ())], output_dir=str(out))
    page = report(out, "--embed")
    dog = page.data["jobs"][0]
    assert dog["media"] == "640x360, 5.04 s, h264, 24 pictures a second, with sound"
    assert dog["warn"] == ["640x360, ordered 720p"]
    assert [(clip["url"], clip.get("role")) for clip in dog["clips"]] == [
        ("a.png", None),
        ("b.png", None),
        ("last.png", "last frame"),
    ]
    embedded = [(a["data-clip"], base64.b64decode(text)) for a, text in page.scripts if a.get("class") == "clip"]
    assert embedded == [("0.0", b"a.png"), ("0.1", b"b.png"), ("0.2", b"last.png")]
    assert "1 clip is not as ordered" in page.text
    assert any(attrs.get("id") == "unlike" for _, attrs in page.tags)


def test_verdicts_that_the_ledger_has(out: Path) -> None:
    jobs = [(spec("dog", take), stored(out / f"{take}.mp4", b"clip %d" % take)) for take in (1, 2, 3)]
    make_ledger(out.parent / "batchrunner.db", jobs, output_dir=str(out))
    assert "approved;" not in report(out).text
    assert call("approve", "dog-1", "dog-2").code == 0
    assert call("reject", "dog-2").code == 0
    page = report(out)
    assert [job.get("verdict") for job in page.data["jobs"]] == ["approved", "rejected", None]
    assert "1 clip approved; what the finals would cost:" in page.text
    assert f"batchrunner promote night --profile PROFILE --dry-run --db {out.parent / 'batchrunner.db'}" in page.text


def test_while_a_run_is_alive(out: Path) -> None:
    db = out.parent / "batchrunner.db"
    make_ledger(db, [(spec("dog"), path_to(State.RUNNING)), (spec("cat"), ())], output_dir=str(out))

    async def begin() -> None:
        async with open_ledger(db, FakeClock(wall=wall())) as ledger:
            ledger.beat(await ledger.start_run(["night"]), {"eta_seconds": 750.0})

    assert "batchrunner resume night" in report(out).text
    asyncio.run(begin())
    page = report(out)
    assert "A run was alive when this page was made" in page.text
    assert "with about 13 min to go" in page.text
    assert "2 under way or waiting." in page.text
    assert "batchrunner resume night" not in page.text


def test_only_a_report_of_this_batch_is_replaced(out: Path, tmp_path: Path) -> None:
    make_ledger(tmp_path / "batchrunner.db", [(spec("dog"), ())], output_dir=str(out))
    make_ledger(tmp_path / "batchrunner.db", [(spec("cat"), ())], name="night.2", output_dir=str(out))
    for _ in range(2):
        assert call("report", "night").code == 0
    before = (out / "report.html").read_bytes()
    ran = call("report", "night.2")
    assert ran.code == 2
    assert "name another file with --out" in ran.err
    assert (out / "report.html").read_bytes() == before
    assert call("report", "night.2", "--out", "batchrunner.db").code == 2
    assert sorted(p.name for p in out.iterdir()) == ["report.html"]


def test_the_page_is_opened_where_that_is_asked_for(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ledger(out.parent / "batchrunner.db", [(spec("dog"), ())], output_dir=str(out))
    opened: list[str] = []

    def browser(url: str) -> bool:
        opened.append(url)
        return len(opened) == 1

    monkeypatch.setattr(webbrowser, "open", browser)
    name = out.parent / "a b#c.html"
    assert call("report", "night", "--out", name).err == ""
    assert opened == []
    assert call("report", "night", "--out", name, "--open").err == ""
    assert opened == [name.as_uri()]
    ran = call("report", "night", "--out", name, "--open")
    assert (ran.code, ran.err) == (0, f"warning: no browser here can be opened; the page is {name.as_uri()}\n")


def test_a_word_of_a_command() -> None:
    assert commands.word("a-1@b=c") == "a-1@b=c"
    assert commands.word("a b;$(x)") == "'a b;$(x)'"
    assert commands.word("a\nb") == "'a\\x0ab'"
