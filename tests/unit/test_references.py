"""References to other shots' outputs: what they name, what is said where they don't, and what the ledger refuses."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.catalogue import models
from batchrunner.core.chain import DRAW, MARK, Link, Need, changed_parents, need_of, needs, spoken
from batchrunner.core.job import JobSpec
from batchrunner.core.keys import fingerprint
from batchrunner.ledger.connection import open_writer
from batchrunner.ledger.errors import LedgerUnusable
from batchrunner.ledger.needs import hold, save
from batchrunner.manifest import ManifestError, load

HEAD = "version: 1\nbatch: b\nshots:\n"
STILL = "- {id: still, model: z-image, prompt: a dog}\n"
Check = Callable[[str], list[str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Shots (from line 4 on) to what is wrong with them."""

    def said(shots: str) -> list[str]:
        (tmp_path / "m.yaml").write_text(HEAD + shots)
        try:
            return [f"{f.line}:{f.column} {f.message}" for f in load(tmp_path / "m.yaml").warnings]
        except ManifestError as error:
            return [f"{f.line}:{f.column} {f.message}" for f in error.findings if not f.warning]

    return said


def made(folder: Path, shots: str, **more: Any) -> dict[str, JobSpec]:
    (folder / "m.yaml").write_text(HEAD + shots)
    return {job.key: job for job in load(folder / "m.yaml", **more).jobs}


def clip(name: str, reference: str, more: str = "") -> str:
    return f'- {{id: {name}, model: kling-3-0-turbo, prompt: x, duration: 5, first_frame: "{reference}"{more}}}\n'


# --- What is said ----------------------------------------------------------------------------------------

TAKES = "- {id: still, model: z-image, prompt: a dog, takes: 2}\n"
POINTS = '- {id: still, model: z-image, prompt: "a ${what}", matrix: {what: [dog, cat]}}\n'


@pytest.mark.parametrize(
    ("shots", "said"),
    [
        (STILL + clip("c", "${shots.still.output_url}"), []),
        (TAKES + clip("c", "${shots.still.2.output_url}"), []),
        (TAKES + clip("c", "${shots.still.take.output_url}", ", takes: 2"), []),
        (POINTS + clip("c", "${shots.still@what=dog-1.output_url}"), []),
        (POINTS + clip("c", "${shots.still.output_url}", ", matrix: {what: [cat, dog]}"), []),
        (clip("c", "${shots.still.output_url}") + STILL, []),
        (
            STILL + clip("c", "${shots.stil.output_url}"),
            ["5:72 unknown shot 'stil' in ${shots.stil.output_url} (did you mean still?); shots: still, c"],
        ),
        (
            STILL + clip("c", "${shots.still}"),
            [
                (
                    "5:72 ${shots.still} says not which output; write ${shots.still.output_url} or "
                    "${shots.still.last_frame_url}"
                )
            ],
        ),
        (
            STILL + clip("c", "${shots.still.output}"),
            [
                (
                    "5:72 ${shots.still.output} says not which output (did you mean output_url?); write "
                    "${shots.still.output_url} or ${shots.still.last_frame_url}"
                )
            ],
        ),
        (
            TAKES + clip("c", "${shots.still.output_url}"),
            [
                (
                    "5:72 ${shots.still.output_url} means 2 takes; name one of them (or `take`, the one with the same "
                    "number); allowed: ${shots.still.1.output_url}, ${shots.still.2.output_url}"
                )
            ],
        ),
        (
            TAKES + clip("c", "${shots.still.take.output_url}", ", takes: 3"),
            [
                (
                    "5:72 ${shots.still.take.output_url}: still has no take 3; allowed: ${shots.still.1.output_url}, "
                    "${shots.still.2.output_url}"
                )
            ],
        ),
        (
            POINTS + clip("c", "${shots.still.output_url}"),
            [
                (
                    "5:72 ${shots.still.output_url} means 2 points of the matrix of still; allowed: "
                    "${shots.still@what=dog-1.output_url}, ${shots.still@what=cat-1.output_url}"
                )
            ],
        ),
        (
            POINTS + clip("c", "${shots.still.output_url}", ", matrix: {what: [cow]}"),
            [
                (
                    "5:72 ${shots.still.output_url} means no job here; allowed: "
                    "${shots.still@what=dog-1.output_url}, ${shots.still@what=cat-1.output_url}"
                )
            ],
        ),
        (
            POINTS + clip("c", "${shots.still@what=cow-1.output_url}"),
            [
                (
                    "5:72 ${shots.still@what=cow-1.output_url} names no job of still; allowed: "
                    "${shots.still@what=dog-1.output_url}, ${shots.still@what=cat-1.output_url}"
                )
            ],
        ),
        (
            STILL + clip("c", "see ${shots.still.output_url}"),
            [
                (
                    "5:72 '${shots.still.output_url}' is another shot's output, and can only be the whole value of a "
                    "request field of a shot"
                )
            ],
        ),
        (
            STILL + clip("c", "https://a.example/x.png", ', tags: ["${shots.still.output_url}"]'),
            [
                (
                    "5:105 '${shots.still.output_url}' is another shot's output, and can only be the whole value of a "
                    "request field of a shot"
                )
            ],
        ),
        (
            STILL + clip("c", "${shots.still.last_frame_url}"),
            ["5:72 still makes no clip that would have a last frame; use its output_url"],
        ),
        (
            "- {id: sea, model: doubao-seedance-2.0, prompt: abc, duration: 5}\n"
            + clip("c", "${shots.sea.last_frame_url}"),
            ["5:72 sea does not ask for its last frame; give it return_last_frame: true"],
        ),
        (
            "- {id: v, model: kling-3-0-turbo, prompt: x, duration: 5}\n" + clip("c", "${shots.v.output_url}"),
            ["5:72 v makes video, and a first frame is a picture"],
        ),
        (
            clip("a", "${shots.a.output_url}"),
            ["4:72 shots need each other in a circle: a needs a (M:4:72)"],
        ),
        (
            clip("a", "${shots.b.output_url}")
            + clip("b", "${shots.c.output_url}")
            + clip("c", "${shots.a.output_url}"),
            ["4:72 shots need each other in a circle: a needs b (M:4:72), b needs c (M:5:72), c needs a (M:6:72)"],
        ),
    ],
)
def test_what_is_said_of_a_reference(check: Check, tmp_path: Path, shots: str, said: list[str]) -> None:
    assert [text.replace(f"{tmp_path}/m.yaml", "M") for text in check(shots)] == said


def test_circles_are_told_each_once_and_beside_every_other_error(check: Check) -> None:
    said = check(
        clip("a", "${shots.b.output_url}")
        + clip("b", "${shots.a.output_url}")
        + clip("c", "${shots.d.output_url}")
        + clip("d", "${shots.c.output_url}")
        + clip("e", "${shots.a.output_url}")
        + clip("f", "${shots.nothing.output_url}")
    )
    assert [text.split(" ")[0] for text in said] == ["4:72", "6:72", "9:72"]
    assert [("circle" in text) for text in said] == [True, True, False]


@pytest.mark.parametrize("text", ["${shots..output_url}", "${shots. still.output_url}", "${shots.\\u202e.output_url}"])
def test_a_hostile_reference_is_shown_and_harmless(check: Check, text: str) -> None:
    (said,) = check(STILL + clip("c", text))
    assert "unknown shot" in said
    assert said.isprintable()


def test_a_table_and_a_list_may_refer_too(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text(
        "id,model,prompt,duration,first_frame\nrow,kling-3-0-turbo,x,5,${shots.still.output_url}\n"
    )
    (tmp_path / "m.yaml").write_text(
        f"version: 1\nbatch: b\nshots_from: [{{file: more.csv}}]\nshots:\n{STILL}"
        '- {id: mix, model: gpt-image-2, prompt: y, image_urls: ["https://a.example/x", "${shots.still.output_url}"]}\n'
    )
    jobs = {job.key: job for job in load(tmp_path / "m.yaml").jobs}
    still = Need("still-1", jobs["still-1"].fingerprint, "output_url")
    assert jobs["row-1"].request["first_frame_image"] == still.reference
    assert jobs["mix-1"].request["image_urls"] == ["https://a.example/x", still.reference]


def test_a_literal_text_is_no_reference(tmp_path: Path) -> None:
    text = '- {id: a, model: z-image, prompt: "$${shots.a.output_url}"}\n'
    request = made(tmp_path, text)["a-1"].request
    assert request["prompt"] == "${shots.a.output_url}"
    assert needs(request) == ()


def test_a_profile_may_refer_and_prices_know_of_the_frame(tmp_path: Path) -> None:
    text = (
        "version: 1\nbatch: b\nprofiles: {p: {first_frame: '${shots.still.output_url}'}}\nshots:\n"
        "- {id: still, model: kling-3-0-turbo, prompt: x, duration: 5}\n"
    )
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(
        ManifestError, match=r"m\.yaml:3:29: error: shots need each other in a circle: still needs still"
    ):
        load(tmp_path / "m.yaml", profile="p")
    sea = "- {id: sea, model: doubao-seedance-2.0, prompt: abc, duration: 5%s}\n"
    plain = made(tmp_path, STILL + sea % "")["sea-1"].credits
    framed = made(tmp_path, STILL + sea % ', first_frame: "${shots.still.output_url}"')["sea-1"].credits
    assert (plain, framed) == (859, 519)


# --- What it makes ---------------------------------------------------------------------------------------


def test_an_edit_changes_all_that_come_from_it_and_nothing_else(tmp_path: Path) -> None:
    shots = (
        STILL
        + clip("a", "${shots.still.output_url}")
        + clip("b", "${shots.still.output_url}")
        + clip("z", "https://x.example/")
    )
    before = made(tmp_path, shots)
    after = made(tmp_path, shots.replace("a dog", "a cat"))
    assert {key for key in before if before[key].fingerprint != after[key].fingerprint} == {"still-1", "a-1", "b-1"}
    assert all(s.fingerprint == fingerprint(s.provider, s.model, s.request) for s in after.values())
    one, two = (made["a-1"].request["first_frame_image"] for made in (before, after))
    assert changed_parents(one, two) == ("still-1",)
    assert changed_parents(one, one) == ()
    assert changed_parents("https://x.example/", two) == ()


def test_a_long_chain_in_any_order(tmp_path: Path) -> None:
    """Longer than Python's stack is deep, and recorded from its end."""
    length = 1500
    first = "- {id: c0, model: kling-3-0-turbo, prompt: x, duration: 5}\n"
    links = [clip(f"c{n}", f"${{shots.c{n - 1}.output_url}}") for n in range(length - 1, 0, -1)]
    jobs = made(tmp_path, "".join(links) + first)
    assert len({job.fingerprint for job in jobs.values()}) == length


@pytest.mark.parametrize("model", sorted(models()))
def test_no_model_has_a_field_that_looks_like_a_reference(model: str) -> None:
    assert MARK not in json.dumps(models()[model].schema)


def test_a_reference_can_not_be_written_by_hand(check: Check) -> None:
    said = check(
        '- {id: a, model: gpt-image-2, prompt: x, image_urls: [{"$output": {job: a-1, of: b, url: output_url}}]}\n'
    )
    assert any("$output is no field of a model" in text for text in said)


# --- The graph -------------------------------------------------------------------------------------------

NASTY = st.text(st.sampled_from('ab"\\<>&;#\n`|[]{}()%-é\u202e'), min_size=1, max_size=12)


@given(st.lists(NASTY, min_size=2, max_size=4, unique=True))
def test_whatever_a_job_is_called_the_drawing_holds(keys: list[str]) -> None:
    nodes = dict.fromkeys(keys, 'new, "5" credits')
    links = [Link(keys[0], keys[1], "output_url")]
    lines = DRAW["mermaid"](nodes, links).splitlines()
    assert lines[0] == "flowchart LR"
    assert all(re.fullmatch(r'  n\d+\["[A-Za-z0-9 .,_=+@$#;-]+<br/>[A-Za-z0-9 .,_=+@$#;-]+"\]', x) for x in lines[1:-1])
    assert lines[-1] == "  n0 -->|output_url| n1"
    quoted = r'"(?:[^"\\\n]|\\.)*"'
    drawn = DRAW["dot"](nodes, links).splitlines()
    assert all(re.fullmatch(rf"  {quoted} \[label={quoted}\];", x) for x in drawn[3:-2])
    assert re.fullmatch(rf"  {quoted} -> {quoted} \[label={quoted}\];", drawn[-2])


# --- The ledger ------------------------------------------------------------------------------------------


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger with a parent (row 1) and its child (row 2)."""
    connection = open_writer(tmp_path / "l.db")
    connection.execute(
        "INSERT INTO batch (name, provider, manifest, output_dir, submits_per_minute, in_flight, created_at, "
        "updated_at) VALUES ('b', 'reapi', 'm', 'o', 1, 1, 0, 0)"
    )
    child = json.dumps(
        {"first": [Need("p-1", "f", "output_url").reference], "text": '{"$output":{"'}, separators=(",", ":")
    )
    for number, (key, mark, request) in enumerate([("p-1", "f", "{}"), ("c-1", "g", child)]):
        connection.execute(
            "INSERT INTO job (batch_id, key, revision, fingerprint, position, shot, take, matrix, tags, provider, "
            "model, request, output, named, created_at, updated_at) "
            "VALUES (1, ?, 1, ?, ?, ?, 1, '{}', '[]', 'reapi', 'm', ?, ?, 0, 0, 0)",
            (key, mark, number, key, request, key),
        )
    save(connection, 0)
    yield connection
    connection.close()


def attempt(db: sqlite3.Connection, job: int, request: str | None) -> None:
    columns = "job_id, number, batch_id, credits, money, intent_at, request"
    db.execute(f"INSERT INTO attempt ({columns}) VALUES (?, 1, 1, 0, 'reserved', 0, ?)", (job, request))


def succeed(db: sqlite3.Connection) -> None:
    attempt(db, 1, None)
    for state in ("submitting", "running", "downloading", "succeeded"):
        urls = "'[]'" if state == "downloading" else "NULL"
        file = "'f', sha256 = 's', bytes = 1" if state == "succeeded" else "NULL"
        db.execute(
            f"UPDATE job SET state = ?, attempt = 1, task_id = 't', urls = {urls}, file = {file} WHERE id = 1", (state,)
        )


def test_needs_are_read_from_requests(db: sqlite3.Connection) -> None:
    assert [tuple(row) for row in db.execute("SELECT * FROM need")] == [(2, "p-1", "f", "")]


def test_no_intent_before_the_parent_has_succeeded_nor_with_a_reference_in_it(db: sqlite3.Connection) -> None:
    refused = pytest.raises(sqlite3.IntegrityError, match="a job is sent when what it needs has succeeded")
    with refused:
        attempt(db, 2, '{"first":["https://x"]}')
    with refused:
        attempt(db, 1, "{}")  # it has no need of another request than its own
    succeed(db)
    with refused:
        attempt(db, 2, None)
    with refused:
        attempt(db, 2, json.dumps({"first": Need("p-1", "f", "output_url").reference}, separators=(",", ":")))
    attempt(db, 2, '{"first":["https://x"]}')


@pytest.mark.parametrize(
    "sql", ["DELETE FROM need", "UPDATE need SET parent = 'x'", "UPDATE need SET fingerprint = 'x'"]
)
def test_what_a_job_needs_never_changes(db: sqlite3.Connection, sql: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="never changes"):
        db.execute(sql)


def test_a_need_that_the_ledger_has_lost_ends_the_run_instead_of_turning_in_circles(db: sqlite3.Connection) -> None:
    hold(db, 2, "p-1", "no live URL")
    assert db.execute("SELECT problem FROM need").fetchone()[0] == "no live URL"
    with pytest.raises(LedgerUnusable, match="what job 1 needs is damaged"):
        hold(db, 1, "p-1", "no live URL")


# --- Pure ------------------------------------------------------------------------------------------------


def test_needs_are_found_wherever_they_are_and_told_as_text() -> None:
    one, two = Need("a-1", "f", "output_url"), Need("b-1", "g", "last_frame_url")
    request = {"x": one.reference, "y": [{"url": two.reference}, one.reference], "z": {MARK: "no", "other": 1}, "n": 5}
    assert needs(request) == (one, two)
    assert spoken(request) == {
        "x": "${shots.a-1.output_url}",
        "y": [{"url": "${shots.b-1.last_frame_url}"}, "${shots.a-1.output_url}"],
        "z": {MARK: "no", "other": 1},
        "n": 5,
    }
    assert need_of({MARK: "a"}) is None
