"""What a valid manifest means."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchrunner import catalogue
from batchrunner.core.job import JobSpec, RetryBudget
from batchrunner.core.keys import fingerprint
from batchrunner.manifest import Manifest, ManifestError, load, reading, rows_csv, rows_jsonl, sources
from batchrunner.manifest import checks as checks_module
from batchrunner.manifest import findings as findings_module

HEAD = "version: 1\nbatch: b\ndefaults: {model: kling-3-0-turbo}\n"
Write = Callable[..., Path]
KLING_FIELDS = ("prompt", "first_frame_image", "resolution", "duration", "aspect_ratio", "watermark")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str, name: str = "m.yaml", *, head: str = HEAD) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + textwrap.dedent(text) if name == "m.yaml" else textwrap.dedent(text), "utf-8")
        return path

    return make


def jobs(manifest: Manifest) -> list[JobSpec]:
    return list(manifest.jobs)


def errors(path: Path, **arguments: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(path, **arguments)
    return [f"{f.line}:{f.column} {f.message}" for f in caught.value.findings]


# --- the head --------------------------------------------------------------------------------------------


def test_everything_that_a_manifest_can_set(write: Write, tmp_path: Path) -> None:
    path = write("""
        provider: reapi
        limits: {submits_per_minute: 90.5, in_flight: 7}
        budget: {max_credits: 5000.0}
        retry: {provider: 2, moderated: 1}
        output: {dir: 'clips/${batch}/${season}'}
        vars: {season: late winter}
        shots: [{id: a, prompt: x}]
        """)
    manifest = load(path)
    assert (manifest.file, manifest.batch, manifest.profile, manifest.provider) == (path, "b", None, "reapi")
    assert (manifest.max_credits, manifest.submits_per_minute, manifest.in_flight) == (5000, 90.5, 7)
    assert manifest.retry == RetryBudget(2, 1)
    assert manifest.output_dir == tmp_path / "clips" / "b" / "late_winter"
    assert manifest.warnings == ()
    assert len(manifest.jobs) == 1


def test_what_a_manifest_leaves_out(write: Write, tmp_path: Path) -> None:
    manifest = load(write("shots: [{id: a, prompt: x}]"))
    assert manifest.max_credits is None
    assert manifest.retry == RetryBudget()
    assert manifest.output_dir == tmp_path / "outputs" / "b"
    assert (manifest.submits_per_minute, manifest.in_flight) == (300.0, 50)


def test_a_relative_file_is_shown_as_spelled(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("shots: [{id: a}]\ninclude: [sub/more.yaml]\n")
    write("shots: [{id: b, duration: 99, prompt: x}]\n", "sub/more.yaml")
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ManifestError) as caught:
        load(f"{tmp_path.name}/m.yaml")
    assert [f.file for f in caught.value.findings] == [f"{tmp_path.name}/m.yaml", f"{tmp_path.name}/sub/more.yaml"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError) as caught:
        load(Path("m.yaml"))
    assert [f.file for f in caught.value.findings] == ["m.yaml", "sub/more.yaml"]


# --- precedence and jobs ---------------------------------------------------------------------------------


def test_one_job_in_full(write: Write) -> None:
    path = write("shots: [{id: corgi, prompt: a corgi, duration: 5, tags: [hero, x]}]")
    (job,) = jobs(load(path))
    request = {"model": "kling-3-0-turbo", "prompt": "a corgi", "duration": 5}
    assert job == JobSpec(
        key="corgi-1",
        fingerprint=fingerprint("reapi", "kling-3-0-turbo", request),
        shot="corgi",
        take=1,
        matrix={},
        tags=("hero", "x"),
        provider="reapi",
        model="kling-3-0-turbo",
        request=request,
        credits=630,
        output="corgi-1",
        named=False,
        seconds=5,
    )


def test_defaults_under_shots_under_the_profile(write: Write) -> None:
    path = write(
        """
        version: 1
        batch: b
        defaults: {model: kling-3-0-turbo, resolution: 720p, duration: 5, takes: 2, tags: [base]}
        profiles:
          final: {resolution: 1080p, takes: 3}
          fast: {duration: 3, tags: [fast]}
        shots:
          - {id: a, prompt: x}
          - {id: b, prompt: x, duration: 10, resolution: 1080p, takes: 1, tags: []}
        """,
        head="",
    )
    plain = jobs(load(path))
    assert [j.key for j in plain] == ["a-1", "a-2", "b-1"]
    assert [(j.request["resolution"], j.request["duration"], j.tags) for j in plain[1:]] == [
        ("720p", 5, ("base",)),
        ("1080p", 10, ()),
    ]
    final = jobs(load(path, profile="final"))
    assert [j.key for j in final] == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]
    assert {j.request["resolution"] for j in final} == {"1080p"}
    assert load(path, profile="final").profile == "final"
    fast = jobs(load(path, profile="fast"))
    assert {(j.request["duration"], j.seconds, j.tags) for j in fast} == {(3, 3, ("fast",))}


def test_the_models_defaults_are_not_sent_but_priced(write: Write) -> None:
    (job,) = jobs(load(write("shots: [{id: a, prompt: x}]")))
    assert job.request == {"model": "kling-3-0-turbo", "prompt": "x"}
    assert (job.credits, job.seconds) == (630, 5)


def test_jobs_can_be_walked_again_and_changed_without_harm(write: Write) -> None:
    manifest = load(write("shots: [{id: a, prompt: x, takes: 2}, {id: b, prompt: y, matrix: {duration: [5, 10]}}]"))
    first = jobs(manifest)
    assert len(manifest.jobs) == len(first) == 4
    for job in first:
        job.request.clear()
        job.matrix["x"] = 1
    assert [j.request["prompt"] for j in jobs(manifest)] == ["x", "x", "y", "y"]
    assert all("x" not in j.matrix for j in manifest.jobs)


def test_sums_are_known_before_any_job_is_made(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of jobs that differ by take, by point and by model, with and without a price."""
    text = """
        prices: {veo3.1-fast: {rates: [{when: {resolution: 720p}, usd: 0.1}], per: output}}
        shots:
          - {id: one, prompt: a corgi, takes: 3}
          - {id: two, prompt: "a corgi ${take}", takes: 2, matrix: {duration: [5, 10]}}
          - {id: dear, prompt: a corgi, matrix: {model: [veo3.1-fast], resolution: [720p, 1080p]}}
    """
    manifest = load(write(text, head="version: 1\nbatch: b\ndefaults: {model: kling-3-0-turbo}\n"))
    every = jobs(manifest)
    monkeypatch.setattr(type(manifest.jobs), "__iter__", None)
    sums = manifest.sums
    assert sums.jobs == len(every) == len(manifest.jobs)
    assert sums.models == {"kling-3-0-turbo": 7, "veo3.1-fast": 2}
    assert (sums.credits, sums.unpriced) == (sum(j.credits or 0 for j in every), 1)


def test_matrix_order_exclude_and_takes(write: Write) -> None:
    path = write("""
        shots:
          - id: a
            prompt: on the ${place}
            matrix: {place: [beach, dunes], duration: [5, 10]}
            exclude: [{place: dunes, duration: 10}]
            takes: 2
        """)
    found = jobs(load(path))
    assert [j.key for j in found] == [
        "a@duration=5+place=beach-1",
        "a@duration=5+place=beach-2",
        "a@duration=10+place=beach-1",
        "a@duration=10+place=beach-2",
        "a@duration=5+place=dunes-1",
        "a@duration=5+place=dunes-2",
    ]
    assert found[2].request == {"model": "kling-3-0-turbo", "prompt": "on the beach", "duration": 10}
    assert found[2].matrix == {"place": "beach", "duration": 10}
    assert found[2].credits == 1259
    assert found[0].fingerprint == found[1].fingerprint != found[2].fingerprint


def test_a_partial_exclude_leaves_out_every_point_with_it(write: Write) -> None:
    path = write("""
        shots:
          - id: a
            prompt: ${x} ${y}
            matrix: {x: [1, 2], y: [1, 2, 3]}
            exclude: [{y: 2}, {x: 2, y: 3}]
        """)
    assert [j.matrix for j in load(path).jobs] == [{"x": 1, "y": 1}, {"x": 1, "y": 3}, {"x": 2, "y": 1}]


def test_an_axis_wins_over_defaults_and_keeps_types_apart(write: Write) -> None:
    path = write(
        """
        version: 1
        batch: b
        defaults: {model: kling-3-0-turbo, duration: 5}
        shots:
          - {id: a, prompt: 'n ${n}', matrix: {duration: [3, 4.0], n: [1, true, '1', 1.5]}}
        """,
        head="",
    )
    found = jobs(load(path))
    assert len({j.key for j in found}) == 8
    assert [j.request["duration"] for j in found] == [3] * 4 + [4] * 4
    assert all(type(j.request["duration"]) is int for j in found)
    assert [j.request["prompt"] for j in found[:4]] == ["n 1", "n true", "n 1", "n 1.5"]


def test_a_key_stays_when_values_are_reordered(write: Write) -> None:
    one = load(write("shots: [{id: a, prompt: '${p}', matrix: {p: [x, y], duration: [5, 10]}}, {id: b, prompt: z}]"))
    before = {j.key: j.fingerprint for j in one.jobs}
    two = load(write("shots: [{id: b, prompt: z}, {id: a, prompt: '${p}', matrix: {duration: [10, 5, 7], p: [y, x]}}]"))
    after = {j.key: j.fingerprint for j in two.jobs}
    assert before.items() <= after.items()


# --- variables -------------------------------------------------------------------------------------------


def test_variables(write: Write) -> None:
    path = write("""
        vars: {season: winter, place: 'the ${season} beach', seconds: 7, year: 2026, wet: true, half: 0.5}
        shots:
          - id: a
            prompt: ${place}, ${year}, ${wet}, ${half}, $${season}, ${shot}/${take}/${batch}/${model}
            duration: ${seconds}
            watermark: ${wet}
            takes: 2
            tags: ['${season}-${take}']
        """)
    one, two = jobs(load(path))
    assert one.request["prompt"] == "the winter beach, 2026, true, 0.5, ${season}, a/1/b/kling-3-0-turbo"
    assert two.request["prompt"].endswith("a/2/b/kling-3-0-turbo")
    assert (one.request["duration"], one.request["watermark"]) == (7, True)
    assert (one.tags, two.tags) == (("winter-1",), ("winter-2",))
    changed = jobs(load(path, variables={"season": "summer", "seconds": "0xA", "wet": "false", "year": "0x10"}))[0]
    assert changed.request["prompt"].startswith("the summer beach, 0x10, false, 0.5")
    assert (changed.request["duration"], changed.request["watermark"]) == (10, False)


def test_a_text_field_takes_a_number_as_text(write: Write) -> None:
    path = write("vars: {year: 2026}\nshots: [{id: a, prompt: '${year}'}]")
    assert jobs(load(path))[0].request["prompt"] == "2026"


def test_a_variable_of_the_command_line_alone(write: Write) -> None:
    path = write("shots: [{id: a, prompt: 'in ${season}'}]")
    assert jobs(load(path, variables={"season": "${batch} spring"}))[0].request["prompt"] == "in b spring"
    assert "unknown variable '${season}'" in errors(path)[0]


def test_a_variable_that_only_the_head_uses_is_used(write: Write) -> None:
    path = write("output: {dir: 'out/${where}'}\nshots: [{id: a, prompt: x}]")
    assert load(path, variables={"where": "x/../y"}).output_dir.name == "x_.._y"


def test_a_matrix_variable_wins_over_a_variable(write: Write) -> None:
    path = write("vars: {p: var}\nshots: [{id: a, prompt: '${p}', matrix: {p: ['${p}!', axis]}}]")
    assert [j.request["prompt"] for j in load(path).jobs] == ["var!", "axis"]


def test_bad_numbers_on_the_command_line(write: Write) -> None:
    path = write("vars: {n: 5}\nshots: [{id: a, prompt: x, duration: '${n}'}]")
    assert errors(path, variables={"n": ".inf"}) == [
        "5:38 variable n: .inf is not a finite number; put it in quotes if text is meant"
    ]
    assert errors(path, variables={"n": "five"})[0].endswith("got the text 'five'")
    assert errors(path, variables={"n": "a\x00"})[0] == "1:1 --var n: the control character U+0000 is not allowed"


def test_variables_that_explode(write: Write) -> None:
    lines = ["vars:", "  v0: " + "x" * 100]
    lines += [f"  v{i}: '{('${v' + str(i - 1) + '}') * 100}'" for i in range(1, 6)]
    path = write("\n".join([*lines, "shots: []", ""]))
    assert any("too long" in e for e in errors(path))
    path = write("shots: [{id: a, prompt: '" + "${shot}" * 1001 + "'}]")
    assert "too many variables" in errors(path)[0]


def test_a_templated_model(write: Write) -> None:
    path = write(
        "version: 1\nbatch: b\nvars: {m: turbo}\nshots: [{id: a, prompt: x, model: 'kling-3-0-${m}', duration: 5.0}]",
        head="",
    )
    (job,) = jobs(load(path))
    assert (job.model, job.request["duration"]) == ("kling-3-0-turbo", 5)
    assert "unknown model 'kling-3-0-x'" in errors(path, variables={"m": "x"})[0]
    assert "unknown variable" in errors(write(path.read_text().replace("${m}", "${n}"), head=""))[0]


# --- output names ----------------------------------------------------------------------------------------


def test_output_names(write: Write) -> None:
    path = write("""
        vars: {season: late winter}
        output: {name: '${aspect_ratio}/${season}/${resolution}-${shot}-${p}-${take}-$${x}.mp4'}
        shots:
          - {id: a, prompt: '${p}', aspect_ratio: 16:9, matrix: {p: ['é è', '../x']}, takes: 2}
        """)
    found = jobs(load(path))
    assert [j.output for j in found] == [
        "16_9/late_winter/720p-a-é_è-1-${x}.mp4",
        "16_9/late_winter/720p-a-é_è-2-${x}.mp4",
        "16_9/late_winter/720p-a-.._x-1-${x}.mp4",
        "16_9/late_winter/720p-a-.._x-2-${x}.mp4",
    ]
    assert all(j.named for j in found)


def test_the_job_in_an_output_name(write: Write) -> None:
    path = write(
        "output: {name: '${job}.mp4'}\nshots: [{id: a, prompt: '${p}', matrix: {p: [x, y]}}, {id: b, prompt: z}]"
    )
    assert [j.output for j in load(path).jobs] == ["a@p=x-1.mp4", "a@p=y-1.mp4", "b-1.mp4"]


def test_composed_and_decomposed_names_collide(write: Write) -> None:
    values = r'["caf\u00e9", "cafe\u0301", STRASSE, straße]'
    path = write(f"output: {{name: '${{p}}.mp4'}}\nshots: [{{id: a, prompt: '${{p}}', matrix: {{p: {values}}}}}]")
    found = errors(path)
    assert len(found) == 2
    assert "café.mp4" in found[0] + found[1]
    assert "straße.mp4" in found[0] + found[1]


def test_only_some_clashes_are_named(write: Write) -> None:
    found = errors(write("output: {name: 'x.mp4'}\nshots: [{id: a, prompt: x, takes: 100}]"))
    assert len(found) == 20


def test_a_reserved_name_without_output_name(write: Write) -> None:
    assert "reserve" in errors(write("shots: [{id: con.x, prompt: x}]"))[0]


# --- prices and warnings ---------------------------------------------------------------------------------


def test_prices_of_the_manifest_win(write: Write) -> None:
    path = write("""
        prices:
          kling-3-0-turbo:
            per: second
            as_of: 2026-11-01
            rates: [{when: {resolution: 1080p}, usd: 0.2}, {usd: '0.1005'}]
        shots: [{id: a, prompt: x}, {id: b, prompt: x, resolution: 1080p}, {id: c, prompt: x, duration: 3}]
        """)
    assert [j.credits for j in load(path).jobs] == [503, 1000, 302]
    flat = write("prices: {kling-3-0-turbo: {per: output, usd: 1}}\nshots: [{id: a, prompt: x, duration: 15}]")
    assert [j.credits for j in load(flat).jobs] == [1000]


def test_an_unknown_price_is_one_warning(write: Write) -> None:
    path = write("""
        prices: {kling-3-0-turbo: {per: second, rates: [{when: {resolution: 4k}, usd: 1}]}}
        shots: []
        """)
    assert "one of 720p, 1080p" in errors(path)[0]
    path = write("""
        prices: {kling-3-0-turbo: {per: second, rates: [{when: {resolution: 1080p}, usd: 1}]}}
        shots: [{id: a, prompt: x}, {id: b, prompt: x}, {id: c, prompt: x, resolution: 1080p}]
        """)
    manifest = load(path)
    assert [str(w).partition(": ")[0].rpartition("m.yaml")[2] for w in manifest.warnings] == [":3:19"]
    assert "no price is known" in manifest.warnings[0].message
    assert [j.credits for j in manifest.jobs] == [None, None, 5000]


def test_warnings_of_the_model(write: Write) -> None:
    path = write(
        """
        version: 1
        batch: b
        defaults: {model: kling-3-0-turbo, aspect_ratio: 16:9}
        shots:
          - {id: a, first_frame_image: https://example.com/a.png}
          - {id: b, first_frame_image: https://example.com/b.png}
          - {id: c, first_frame_image: https://example.com/c.png, aspect_ratio: 1:1}
          - {id: d, prompt: x}
        """,
        head="",
    )
    warnings = load(path).warnings
    assert [(w.line, w.column, w.warning) for w in warnings] == [(4, 50, True), (8, 73, True)]
    assert "no effect" in warnings[0].message
    assert str(warnings[0]).startswith(f"{path}:4:50: warning: aspect_ratio")
    long = load(write("shots: [{id: a, prompt: " + "x" * 2501 + "}]")).warnings
    assert ["2500 characters" in w.message for w in long] == [True]


def test_an_axis_that_changes_nothing_is_a_warning(write: Write) -> None:
    path = write("shots: [{id: a, prompt: x, matrix: {plaec: [beach], durations: [1]}}]")
    assert ["changes nothing" in w.message for w in load(path).warnings] == [True, True]
    assert "did you mean duration?" in load(path).warnings[1].message
    used = write("output: {name: '${shot}-${p}.mp4'}\nshots: [{id: a, prompt: x, matrix: {p: [1, 2]}}]")
    assert load(used).warnings == ()


def test_no_shots_is_a_warning(write: Write) -> None:
    manifest = load(write("shots: []"))
    assert len(manifest.jobs) == 0
    assert list(manifest.jobs) == []
    assert "nothing to do" in manifest.warnings[0].message


# --- other files -----------------------------------------------------------------------------------------


def test_shots_come_in_the_order_of_the_file(write: Write) -> None:
    write("shots_from: [{file: deeper/rows.csv}]\nshots: [{id: inc, prompt: x}]\n", "sub/more.yaml")
    write("id,prompt\ncsv,x\n", "sub/deeper/rows.csv")
    write('{"id": "jsonl", "prompt": "x"}\n', "rows.data")
    path = write("""
        vars: {where: sub}
        include: ['${where}/more.yaml']
        shots: [{id: own, prompt: x}]
        shots_from: [{file: rows.data, format: jsonl}]
        """)
    assert [j.shot for j in load(path).jobs] == ["csv", "inc", "own", "jsonl"]


def test_csv(write: Write) -> None:
    rows = [
        "\ufeffid,prompt,duration,takes,tags,matrix,exclude,watermark,resolution",
        'a,"a dog, ""running""",5,2,hero; winter,,,,',
        'b,"two\nlines ${season}",${seconds},,,,,true,1080p',
        "",
        """c,07,,,,"{""duration"": [5, 10], ""p"": [""x"", ""y""]}","[{""p"": ""y"", ""duration"": 10}]",,""",
        ",,,,,,,,",
    ]
    write("\n".join(rows), "rows.csv")
    path = write("vars: {season: winter, seconds: 7}\nshots_from: [{file: rows.csv}]")
    found = jobs(load(path))
    assert [j.key for j in found] == [
        "a-1",
        "a-2",
        "b-1",
        "c@duration=5+p=x-1",
        "c@duration=5+p=y-1",
        "c@duration=10+p=x-1",
    ]
    assert found[0].request == {"model": "kling-3-0-turbo", "prompt": 'a dog, "running"', "duration": 5}
    assert found[0].tags == ("hero", "winter")
    assert found[2].request == {
        "model": "kling-3-0-turbo",
        "prompt": "two\nlines winter",
        "duration": 7,
        "watermark": True,
        "resolution": "1080p",
    }
    assert found[3].request["prompt"] == "07"
    assert {w.message.split()[2] for w in load(path).warnings} == {"p"}


def test_csv_and_the_profile(write: Write) -> None:
    write("id,prompt,duration\r\na,x,5\r\nb,y,\r\n", "rows.csv")
    path = write("profiles: {long: {duration: 15}}\nshots_from: [{file: rows.csv}]")
    assert [j.request["duration"] for j in load(path, profile="long").jobs] == [15, 15]


def test_csv_values_that_are_no_numbers(write: Write) -> None:
    write("id,prompt,duration,takes\na,x,.nan,1\nb,x,5,.inf\nc,x,5,2.0\n", "rows.csv")
    found = errors(write("shots_from: [{file: rows.csv}]"))
    assert [e.split()[0] for e in found] == ["2:5", "3:7"]


def test_jsonl(write: Write) -> None:
    write(
        '\ufeff{"id": "a", "prompt": "x", "matrix": {"duration": [5, 10]}, "takes": 2, "tags": ["t"]}\r\n\n'
        '{"id": "b", "prompt": "\\u00e9\\ud83d\\ude00", "duration": 5.0, "watermark": false}\n',
        "rows.jsonl",
    )
    found = jobs(load(write("shots_from: [{file: rows.jsonl}]")))
    assert [j.key for j in found] == ["a@duration=5-1", "a@duration=5-2", "a@duration=10-1", "a@duration=10-2", "b-1"]
    assert found[-1].request["prompt"] == "é😀"
    assert found[-1].request["duration"] == 5
    assert type(found[-1].request["duration"]) is int


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ('{"id": "a", "prompt": ' + "[" * 100_000, 23, "nested too deeply"),
        ('{"id": "a", "x": ' + "[" * 40 + "]" * 40 + "}", 18, "nested too deeply"),
        ('{"id": "a", "duration": 1e999}', 25, "too large"),
        ('{"id": "a", "duration": ' + "9" * 5000 + "}", 25, "64 bits"),
        ('{"id": "a", "duration": Infinity}', 25, "Infinity is not JSON"),
        ('{"id": "a\\u0000"}', 8, "control character U+0000"),
        ('{"id": "a", 5: 1}', 13, "a key in double quotes"),
        ('{"id": "a", "b" 1}', 17, "':' is expected"),
        ('{"id": "a", "b": }', 18, "expecting value"),
        ('{"id": "a", "id": 1}', 13, "duplicate key 'id'"),
        ('{"id": {"\\ud800": 1}}', 8, "lone surrogate"),
        ('"text"', 1, "one JSON object"),
        ("{", 2, "a key in double quotes"),
    ],
)
def test_bad_json_lines(write: Write, line: str, column: int, message: str) -> None:
    write("\n" + line + "\n", "rows.jsonl")
    (found,) = errors(write("shots_from: [{file: rows.jsonl}]"))
    assert found.startswith(f"2:{column} ")
    assert message in found


def test_tables_are_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("shots_from: [{file: rows.csv}]")
    write("id,prompt\na," + "x" * (rows_csv.MAX_CELL + 1) + "\n", "rows.csv")
    assert "longer than" in errors(path)[0]
    write(",".join(["id"] * 201) + "\n", "rows.csv")
    assert "too many columns" in errors(path)[0]
    write("id,prompt\n" + "x\n" * 1000, "rows.csv")
    assert len(errors(path)) == rows_csv.MAX_BAD_ROWS
    write("id,prompt\na,'x\"\n", "rows.csv")
    assert load(path).jobs is not None
    monkeypatch.setattr(rows_jsonl, "MAX_LINE", 10)
    write('{"id": "abcdefg"}\n' + "x\n" * 200, "rows.jsonl")
    found = errors(write("shots_from: [{file: rows.jsonl}]"))
    assert "the line is too long" in found[0]
    assert len(found) == rows_jsonl.MAX_BAD_LINES


def test_links_and_folders(write: Write, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x.yaml").write_text("shots: [{id: x, prompt: x}]\n")
    (tmp_path / "link.yaml").symlink_to(outside / "x.yaml")
    (tmp_path / "folder").symlink_to(outside)
    (tmp_path / "dir.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.csv")
    write("shots: [{id: inside, prompt: x}]\n", "real/in.yaml")
    (tmp_path / "in.yaml").symlink_to(tmp_path / "real" / "in.yaml")
    path = write("include: [link.yaml, folder/x.yaml, dir.yaml, dangling.yaml]\nshots_from: [{file: pipe.csv}]")
    found = errors(path)
    assert len(found) == 5
    assert sum("a link out of the manifest's folder" in e for e in found) == 2
    assert sum("it is a folder" in e for e in found) == 1
    assert sum("there is no such file" in e for e in found) == 1
    assert sum("not a regular file" in e for e in found) == 1
    assert [j.shot for j in load(write("include: [in.yaml]")).jobs] == ["inside"]


def test_an_include_may_climb_within_the_folder(write: Write) -> None:
    write("include: [../common.yaml]\n", "acts/one.yaml")
    write("shots: [{id: common, prompt: x}]\n", "common.yaml")
    assert [j.shot for j in load(write("include: [acts/one.yaml]")).jobs] == ["common"]


def test_files_are_bounded(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(12):
        write(f"include: [f{i + 1}.yaml]\n", f"f{i}.yaml")
    write("shots: []\n", "f12.yaml")
    assert "included too deeply" in errors(write("include: [f0.yaml]"))[0]
    with monkeypatch.context() as patch:
        patch.setattr(sources, "MAX_FILES", 1)
        write("shots: []\n", "g.yaml")
        assert "too many files" in errors(write("include: [f12.yaml, g.yaml]"))[0]
    with monkeypatch.context() as patch:
        patch.setattr(sources, "MAX_TOTAL", 5)
        assert "too much to read" in errors(write("include: [f12.yaml]"))[0]
    big = tmp_path / "big.yaml"
    with big.open("wb") as stream:
        stream.truncate(reading.MAX_FILE + 1)
    assert errors(big) == ["1:1 the file is too large: at most 32 MiB are read"]


def test_unreadable_manifests(tmp_path: Path) -> None:
    assert errors(tmp_path / "none.yaml") == ["1:1 can't read it: there is no such file"]
    assert errors(tmp_path) == ["1:1 can't read it: it is a folder"]
    assert "can't read it" in errors(tmp_path / "a\0b")[0]
    (tmp_path / "x").write_text("")
    assert errors(tmp_path / "x" / "y") == ["1:1 can't read it: not a directory"]
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    assert "a manifest is a mapping" in errors(empty)[0]


# --- bounds of the checks --------------------------------------------------------------------------------


def test_many_errors_are_cut(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("shots:\n" + "".join(f"  - {{id: s{i}, prompt: x, duration: 99}}\n" for i in range(300)))
    found = errors(path)
    assert len(found) == findings_module.MAX_SHOWN + 1
    assert found[-1].endswith("and 200 more errors, not shown")
    monkeypatch.setattr(findings_module, "MAX_KEPT", 150)
    assert errors(path)[-1].endswith("and at least 50 more errors, not shown")


def test_one_bad_default_is_one_error(write: Write) -> None:
    shots = "".join(f"  - {{id: s{i}}}\n" for i in range(2000))
    path = write(f"version: 1\nbatch: b\ndefaults: {{model: kling-3-0-turbo, prompt: ''}}\nshots:\n{shots}", head="")
    assert errors(path) == ["3:44 prompt must be text of 1 to 3072 characters, got 0 characters"]


def test_jobs_are_bounded_before_they_are_made(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = ", ".join(f"a{i}: [{', '.join(map(str, range(100)))}]" for i in range(16))
    assert "too many jobs" in errors(write(f"shots: [{{id: a, prompt: x, matrix: {{{axes}}}}}]"))[0]
    monkeypatch.setattr(checks_module, "MAX_JOBS", 5)
    assert errors(write("shots: [{id: a, prompt: x, takes: 3}, {id: b, prompt: x, takes: 3}, {id: c, x: 1}]")) == [
        "4:39 too many jobs: with this shot 6, at most 5 are allowed"
    ]


# --- other models ----------------------------------------------------------------------------------------

PICTURES = {
    "title": "Pictures",
    "type": "object",
    "properties": {
        "model": {"const": "pictures"},
        "prompt": {"type": "string"},
        "image_urls": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 30}},
        "roles": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"n": {"type": "integer"}},
                "required": ["n"],
                "additionalProperties": False,
            },
        },
        "size": {"enum": ["1k", "2k"], "default": "1k"},
        "seed": {"type": "integer", "minimum": -1},
    },
    "required": ["model", "prompt"],
    "not": {"required": ["image_urls", "roles"]},
    "allOf": [{"if": {"properties": {"size": {"const": "2k"}}, "required": ["size"]}, "then": {"required": ["seed"]}}],
    "additionalProperties": False,
    "x-batchrunner": {"provider": "reapi", "endpoint": "/images/generations", "output": "image"},
}


@pytest.fixture
def two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**catalogue.models(), "pictures": catalogue.model_of(PICTURES)}
    monkeypatch.setattr(catalogue, "models", lambda: known)


@pytest.mark.usefixtures("two_models")
def test_a_model_with_lists_and_no_price(write: Write) -> None:
    path = write(
        """
        version: 1
        batch: b
        vars: {host: 'https://x', n: 3}
        defaults: {model: pictures}
        shots:
          - {id: a, prompt: x, image_urls: ['${host}/${shot}.png'], seed: 5.0}
          - {id: b, prompt: x, roles: [{n: '${n}'}]}
          - {id: c, prompt: x, matrix: {model: [pictures, kling-3-0-turbo]}}
        """,
        head="",
    )
    manifest = load(path)
    found = jobs(manifest)
    assert found[0].request == {"model": "pictures", "prompt": "x", "image_urls": ["https://x/a.png"], "seed": 5}
    assert found[1].request["roles"] == [{"n": 3}]
    assert [(j.model, j.credits, j.seconds) for j in found[2:]] == [
        ("pictures", None, None),
        ("kling-3-0-turbo", 630, 5),
    ]
    assert [w.column for w in manifest.warnings] == [19, 41]


@pytest.mark.usefixtures("two_models")
def test_errors_of_a_model_with_lists(write: Write) -> None:
    path = write(
        """
        version: 1
        batch: b
        defaults: {model: pictures, duration: 5}
        shots:
          - {id: a, prompt: x, image_urls: [a, b, c], roles: []}
          - {id: b, prompt: x, image_urls: ['https://example.com/a-very-long-name.png']}
          - {id: c, prompt: x, roles: [{n: x, m: 1}, {}]}
          - {id: d, prompt: x, size: 2k}
          - {id: e}
          - {id: f, model: kling-3-0-turbo, prompt: x, image_urls: [x]}
        """,
        head="",
    )
    assert errors(path) == [
        "4:29 pictures has no field 'duration'; its fields: prompt, image_urls, roles, size, seed",
        "6:5 shot a: image_urls and roles can't be used together",
        "6:36 image_urls must have 0 to 2 values, got 3",
        "7:37 image_urls[0] must be text of at most 30 characters, got 40 characters",
        "8:36 n must be a whole number, got the text 'x'",
        "8:39 unknown key 'm' in roles[0]; allowed: n",
        "8:46 roles[1] has no n; it is required",
        "9:5 shot d has no seed; it is required",
        "10:5 shot e has no prompt; it is required",
        f"11:48 kling-3-0-turbo has no field 'image_urls'; its fields: {', '.join(KLING_FIELDS)}",
    ]


@pytest.mark.usefixtures("two_models")
def test_a_profile_that_changes_the_model(write: Write) -> None:
    path = write("profiles: {still: {model: pictures}}\nshots: [{id: a, prompt: x, duration: 5}]")
    assert jobs(load(path))[0].model == "kling-3-0-turbo"
    assert "pictures has no field 'duration'" in errors(path, profile="still")[0]
