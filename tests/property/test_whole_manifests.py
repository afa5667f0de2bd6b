"""Whole manifests with every feature, valid by construction, against a reference that expands them the slow way."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner.manifest import Finding, Manifest, ManifestError, load
from tests.fuzz.targets import in_memory

MODEL = "kling-3-0-turbo"
USD = {"720p": Fraction("0.12584"), "1080p": Fraction("0.15752")}
FILES = {"manifest": "m.yaml", "jsonl": "t.jsonl", "csv": "t.csv", "included": "more.yaml"}
HOMES = tuple(FILES)
"""Where shots may be written, in the order in which they are written into the head, and so read."""
Shot = dict[str, Any]
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""No wall clock: it says how busy the machine is."""


@dataclass
class Made:
    """A manifest as plain data.

    Attributes:
        head: everything but where shots are.
        shots: shots by where they are written.
        profile: the one that is chosen.
        as_json: written as JSON, which is YAML too, or in YAML's own style.
    """

    head: dict[str, Any]
    shots: dict[str, list[Shot]]
    profile: str | None = None
    as_json: bool = True

    def files(self) -> dict[str, str]:
        """Text of every file by name."""
        tree = {**self.head, "shots": self.shots["manifest"]}
        texts = {}
        tables = [{"file": f"t.{kind}"} for kind in ("jsonl", "csv") if self.shots[kind]]
        if tables:
            tree["shots_from"] = tables
        if self.shots["included"]:
            tree["include"] = ["more.yaml"]
            texts["more.yaml"] = self._text({"version": 1, "shots": self.shots["included"]})
        if self.shots["jsonl"]:
            lines = [json.dumps(shot, ensure_ascii=False) for shot in self.shots["jsonl"]]
            texts["t.jsonl"] = "\n".join(lines) + "\n"
        if self.shots["csv"]:
            texts["t.csv"] = as_csv(self.shots["csv"])
        return {"m.yaml": self._text(tree), **texts}

    def _text(self, tree: Any) -> str:
        if self.as_json:
            return json.dumps(tree, ensure_ascii=False, indent=1)
        return yaml.dump(
            tree, Dumper=Writer, allow_unicode=True, sort_keys=False, default_flow_style=None, width=10_000
        )


class Writer(yaml.SafeDumper):
    """PyYAML writes by YAML 1.1, where `08` and `1e5` are texts; by 1.2 they are numbers, and a text wants quotes."""


def _quoted(writer: Writer, text: str) -> yaml.ScalarNode:
    return writer.represent_scalar("tag:yaml.org,2002:str", text, "'" if text[:1] in {*"0123456789+-."} else None)


Writer.add_representer(str, _quoted)


def as_csv(shots: list[Shot]) -> str:
    columns = list(dict.fromkeys(name for shot in shots for name in shot))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for shot in shots:
        writer.writerow([_cell(name, shot.get(name)) for name in columns])
    return out.getvalue()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in ("matrix", "exclude"):
        return json.dumps(value, ensure_ascii=False)
    if name == "tags":
        return ";".join(value)
    return value if isinstance(value, str) else json.dumps(value)


# --- valid ones ------------------------------------------------------------------------------------------

WORD = st.sampled_from(
    ["a corgi", "é", "犬 runs", "16:9", "no", "010", "#1", "- x", "a: b", 'say "hi"', "it's", "$5", "{x}"]
)
IDS = st.from_regex(r"[a-z0-9][a-zA-Z0-9_]{0,6}(-[a-z0-9]{1,3})?", fullmatch=True).filter(
    lambda s: s.casefold() not in {"con", "prn", "aux", "nul"}
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "resolution": st.sampled_from(["720p", "1080p"]),
    "duration": st.integers(3, 15),
    "aspect_ratio": st.sampled_from(["16:9", "9:16", "1:1"]),
    "watermark": st.booleans(),
}
TAGS = st.lists(st.sampled_from(["hero", "night", "b-roll"]), unique=True, min_size=1, max_size=2)
AXES: dict[str, st.SearchStrategy[list[Any]]] = {
    "place": st.lists(
        st.sampled_from(["beach", "dunes", "é", "a b", "720p", "5"]), min_size=1, max_size=3, unique=True
    ),
    "n": st.lists(st.sampled_from([1, 2, 0.5, True, "1"]), min_size=1, max_size=3, unique_by=lambda v: (type(v), v)),
    "duration": st.lists(st.integers(3, 15), min_size=1, max_size=3, unique=True),
    "resolution": st.just(["1080p", "720p"]),
}


@st.composite
def shot(draw: st.DrawFn, name: str) -> Shot:
    made: Shot = {"id": name}
    axes: dict[str, list[Any]] = {}
    if draw(st.booleans()):
        axes = draw(st.fixed_dictionaries({}, optional=AXES))
    words = draw(st.lists(WORD, min_size=1, max_size=3))
    names = ["season", "shot", "batch", "take", "model", *axes]
    words += [f"${{{n}}}" for n in draw(st.lists(st.sampled_from(names), max_size=3))]
    made["prompt"] = " ".join([*draw(st.permutations(words)), *draw(st.sampled_from([[], ["$${x}"]]))])
    if draw(st.integers(0, 4)) == 0:
        made["first_frame_image"] = "https://example.com/still.png"
    made |= draw(st.fixed_dictionaries({}, optional={n: s for n, s in FIELDS.items() if n not in axes}))
    if draw(st.booleans()):
        made["takes"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        made["tags"] = draw(TAGS)
    if axes:
        made["matrix"] = axes
        left = math.prod(map(len, axes.values()))
        point = {n: draw(st.sampled_from(values)) for n, values in axes.items()}
        if left > 1 and draw(st.booleans()):
            made["exclude"] = [point]
    return made


@st.composite
def manifests(draw: st.DrawFn) -> Made:
    names = draw(st.lists(IDS, min_size=1, max_size=6, unique_by=str.casefold))
    shots: dict[str, list[Shot]] = {home: [] for home in HOMES}
    for name in names:
        shots[draw(st.sampled_from(HOMES))].append(draw(shot(name)))
    head: dict[str, Any] = {"version": 1, "batch": "night-1", "vars": {"season": draw(WORD), "of": "${season}"}}
    head["defaults"] = {"model": MODEL} | draw(
        st.fixed_dictionaries({}, optional={**FIELDS, "tags": TAGS, "takes": st.integers(1, 2)})
    )
    # A profile can't set what is an axis of a shot.
    free = {"aspect_ratio": FIELDS["aspect_ratio"], "watermark": FIELDS["watermark"], "tags": TAGS, "takes": st.just(2)}
    head["profiles"] = {"final": draw(st.fixed_dictionaries({}, optional=free)), "other": {"duration": 3}}
    head |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "limits": st.just({"submits_per_minute": 60, "in_flight": 20}),
                "budget": st.just({"max_credits": 10**9}),
                "retry": st.just({"provider": 2, "moderated": 1}),
                "output": st.sampled_from([{"name": "${job}.mp4"}, {"dir": "out/${of}", "name": "${shot}/${job}.mp4"}]),
                "prices": st.just({MODEL: {"per": "second", "usd": "0.1234"}}),
            },
        )
    )
    return Made(head, shots, draw(st.sampled_from([None, "final"])), draw(st.booleans()))


@contextmanager
def written(made: Made, change: Callable[[str], str] = lambda text: text) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        for name, text in made.files().items():
            (Path(folder) / name).write_bytes(change(text).encode())
        yield Path(folder) / "m.yaml"


@contextmanager
def loaded(made: Made) -> Iterator[Manifest]:
    with written(made) as path:
        try:
            yield load(path, profile=made.profile)
        except ManifestError as error:
            raise AssertionError(f"{error}\n{made.files()}") from error


@pytest.mark.parametrize("name", ["08", "010", "1e5", "0x1f", "5", "1", "7-2"])
def test_an_id_that_looks_like_a_number_is_written_as_a_text(name: str) -> None:
    made = Made({"version": 1, "batch": "b"}, {home: [] for home in HOMES}, as_json=False)
    made.shots[HOMES[0]] = [{"id": name, "model": MODEL, "prompt": "a dog"}]
    with loaded(made) as manifest:
        assert [job.shot for job in manifest.jobs] == [name]


# --- the reference ---------------------------------------------------------------------------------------


def typed(value: Any) -> str:
    return f"{type(value).__name__} {value}"


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def reference(made: Made) -> list[tuple[str, dict[str, str], int, dict[str, Any], list[str], int]]:
    """(shot, point, take, request, tags, credits) of every job, in order."""
    over = made.head["profiles"][made.profile] if made.profile else {}
    jobs = []
    for one in (shot for home in HOMES for shot in made.shots[home]):
        layers = {**made.head["defaults"], **one, **over}
        axes = one.get("matrix", {})
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            left_out = one.get("exclude", [])
            if any(all(typed(point[n]) == typed(v) for n, v in entry.items()) for entry in left_out):
                continue
            for take in range(1, layers.get("takes", 1) + 1):
                own = {"batch": "night-1", "shot": one["id"], "take": take, "model": MODEL}
                known = {**made.head["vars"], **own, **point}
                request = {
                    n: v
                    for n, v in {**layers, **point}.items()
                    if n in ("model", "prompt", "first_frame_image", *FIELDS)
                }
                for name, value in known.items():
                    request["prompt"] = request["prompt"].replace(f" ${{{name}}}", f" {as_text(value)}")
                    if request["prompt"].startswith(f"${{{name}}}"):
                        request["prompt"] = as_text(value) + request["prompt"].removeprefix(f"${{{name}}}")
                request["prompt"] = request["prompt"].replace("$${", "${")
                usd = Fraction("0.1234") if "prices" in made.head else USD[request.get("resolution", "720p")]
                price = math.ceil(usd * request.get("duration", 5) * 1000)
                shown = {n: typed(v) for n, v in point.items()}
                jobs.append((one["id"], shown, take, request, layers.get("tags", []), price))
    return jobs


@settings(PATIENT, max_examples=80)
@given(manifests())
def test_a_valid_manifest_becomes_what_the_reference_says(made: Made) -> None:
    wanted = reference(made)
    with loaded(made) as manifest:
        jobs = list(manifest.jobs)
        got = [
            (j.shot, {n: typed(v) for n, v in j.matrix.items()}, j.take, j.request, list(j.tags), j.credits)
            for j in jobs
        ]
        assert sorted(got, key=str) == sorted(wanted, key=str)
        assert [j.shot for j in jobs] == [w[0] for w in sorted(wanted, key=lambda w: order_of(made).index(w[0]))]
        assert len(jobs) == len(manifest.jobs) == len({j.key for j in jobs}) == len({j.output for j in jobs})
        assert list(manifest.jobs) == jobs
        sums = manifest.sums
        assert (sums.jobs, sums.credits, sums.unpriced) == (len(jobs), sum(j.credits or 0 for j in jobs), 0)
        assert sums.models == Counter(j.model for j in jobs)


def order_of(made: Made) -> list[str]:
    """Ids in the order of the file's keys: shots, then tables, then includes, as they are written here."""
    return [one["id"] for home in HOMES for one in made.shots[home]]


def identities(made: Made) -> dict[str, str]:
    with loaded(made) as manifest:
        return {job.key: job.fingerprint for job in manifest.jobs}


@settings(PATIENT, max_examples=30)
@given(manifests(), st.randoms(use_true_random=False))
def test_jobs_are_the_same_wherever_and_in_whatever_order_they_are_written(made: Made, random: Any) -> None:
    before = identities(made)
    moved = copy.deepcopy(made)
    everything = [one for home in HOMES for one in moved.shots[home]]
    random.shuffle(everything)
    moved.shots = {home: [] for home in HOMES}
    for one in everything:
        if "matrix" in one:
            one["matrix"] = {axis: values[::-1] for axis, values in reversed(one["matrix"].items())}
        moved.shots[random.choice(HOMES)].append(dict(reversed(one.items())))
    moved.head = dict(reversed(moved.head.items()))
    moved.as_json = not made.as_json
    assert identities(moved) == before
    home = next(home for home in HOMES if moved.shots[home])
    gone = moved.shots[home].pop()
    assert identities(moved) == {key: mark for key, mark in before.items() if not of_shot(key, gone["id"])}


@settings(PATIENT, max_examples=30)
@given(manifests(), st.data())
def test_editing_one_shot_changes_only_its_jobs(made: Made, data: st.DataObject) -> None:
    before = identities(made)
    home = data.draw(st.sampled_from([home for home in HOMES if made.shots[home]]))
    edited = data.draw(st.sampled_from(made.shots[home]))
    edited["prompt"] += " at night"
    after = identities(made)
    assert after.keys() == before.keys()
    assert {key for key in after if after[key] != before[key]} == {key for key in after if of_shot(key, edited["id"])}


def of_shot(key: str, name: str) -> bool:
    return key.rpartition("-")[0].partition("@")[0] == name


def test_the_seed_of_the_hashes_changes_nothing() -> None:
    """Sets and dictionaries are walked in an order of ours: in jobs as in errors."""
    made = Made(
        {
            "version": 1,
            "batch": "b",
            "vars": {"a": "${b} ${c} ${d}", "b": "${d} ${a}", "c": "${a} ${b}", "d": "${c} ${a} ${b}"},
            "defaults": {"model": MODEL},
        },
        {
            "manifest": [
                {"id": "x", "prompt": "${u} ${v} ${w}", "colour": 1, "size": 2, "matrix": {"p": [1], "q": [2]}}
            ],
            "included": [],
            "jsonl": [],
            "csv": [],
        },
    )
    good = Made(
        {"version": 1, "batch": "b", "defaults": {"model": MODEL, "tags": ["t", "u"]}},
        {**made.shots, "manifest": [{"id": "x", "prompt": "${p}", "matrix": {"p": ["a", "b"], "q": [2, True]}}]},
    )
    program = (
        "import sys\nfrom batchrunner.manifest import ManifestError, load\n"
        "for path in sys.argv[1:]:\n"
        "    try: print(*load(path).jobs, sep='\\n')\n"
        "    except ManifestError as error: print(*error.findings, sep='\\n')\n"
    )
    with written(made) as bad_path, written(good) as good_path:
        said = {
            subprocess.run(
                [sys.executable, "-c", program, bad_path, good_path],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
            ).stdout
            for seed in ("1", "2", "3")
        }
    assert len(said) == 1
    assert b"in a circle" in (text := said.pop())
    assert b"JobSpec(" in text


# --- valid, then broken ----------------------------------------------------------------------------------

BAD = "xx__bad"


def _field(name: str, value: Any) -> Callable[[Shot], None]:
    """Set a field, which then can't be an axis too."""

    def put(one: Shot) -> None:
        for point in (one.get("matrix", {}), *one.get("exclude", [])):
            point.pop(name, None)
        if not one.get("matrix", True):  # it was the only axis; an empty matrix would be a mistake of its own
            del one["matrix"]
            one.pop("exclude", None)
        one[name] = value

    return put


def _matrix(axes: dict[str, list[Any]], *excluded: dict[str, Any]) -> Callable[[Shot], None]:
    def put(one: Shot) -> None:
        for name in axes:
            one.pop(name, None)
        one.pop("exclude", None)
        one["matrix"] = axes
        if excluded:
            one["exclude"] = list(excluded)

    return put


SHOT_BREAKS: dict[str, Callable[[Shot], None]] = {
    "an unknown key": _field(BAD, 1),
    "text for a number": _field("duration", BAD),
    "no such choice": _field("resolution", BAD),
    "an unknown model": _field("model", BAD),
    "an unknown variable": _field("prompt", f"${{{BAD}}} x"),
    "no URL": _field("first_frame_image", BAD),
    "a bad axis value": _matrix({"duration": [5, BAD]}),
    "an unknown axis excluded": _matrix({"p": [1, 2]}, {"p": 1}, {BAD: 1}),
    "no such value excluded": _matrix({"p": [1, 2]}, {"p": BAD}),
}
HEAD_BREAKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "an unknown key": lambda head: head.update({BAD: 1}),
    "an unknown default": lambda head: head["defaults"].update({BAD: 1}),
    "a bad default": lambda head: head["defaults"].update(resolution=BAD),
    "a bad field of a profile": lambda head: head["profiles"]["other"].update(duration=BAD),
    "a variable of nothing": lambda head: head["vars"].update(y=f"${{{BAD}}}"),
    "an unknown provider": lambda head: head.update(provider=BAD),
    "a bad budget": lambda head: head.update(budget={"max_credits": BAD}),
    "an unknown limit": lambda head: head.update(limits={BAD: 1}),
    "a price of no model": lambda head: head.update(prices={BAD: {"per": "second", "usd": "1"}}),
    "a file that is not there": lambda head: head.update(shots_from=[{"file": f"{BAD}.csv"}]),
    "an output out of the folder": lambda head: head.update(output={"dir": f"{BAD}/../.."}),
}


def position(text: str) -> tuple[int, int]:
    """Where the scalar that begins with the mark stands."""
    at = text.index(BAD)
    at -= 2 * (text[at - 2 : at] == "${")
    at -= text[at - 1 : at] in ("'", '"')
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def refusal(made: Made) -> tuple[ManifestError, Path]:
    with written(made) as path:
        with pytest.raises(ManifestError) as caught:
            load(path, profile=made.profile)
        return caught.value, path.parent


def errors_at(error: ManifestError, path: Path, line: int, column: int) -> list[str]:
    return [
        f.message for f in error.findings if not f.warning and (f.file, f.line, f.column) == (str(path), line, column)
    ]


@settings(PATIENT, max_examples=80)
@given(manifests(), st.sampled_from(sorted(SHOT_BREAKS)), st.data())
def test_a_broken_shot_is_refused_where_it_is_broken(made: Made, kind: str, data: st.DataObject) -> None:
    home = data.draw(st.sampled_from([home for home in HOMES if made.shots[home]]))
    SHOT_BREAKS[kind](data.draw(st.sampled_from(made.shots[home])))
    name = FILES[home]
    line, column = position(made.files()[name])
    error, folder = refusal(made)
    if home in ("jsonl", "csv") and ("axis" in kind or "excluded" in kind):
        # a list or a mapping of a row stands at one place with all that is in it
        assert any(f.file == str(folder / name) and f.line == line and not f.warning for f in error.findings), str(
            error
        )
    else:
        assert errors_at(error, folder / name, line, column), f"{line}:{column}\n{error}\n{made.files()[name]}"


@settings(PATIENT, max_examples=60)
@given(manifests(), st.sampled_from(sorted(HEAD_BREAKS)))
def test_a_broken_head_is_refused_where_it_is_broken(made: Made, kind: str) -> None:
    made.shots["jsonl"] = made.shots["csv"] = []  # a break may name tables itself
    HEAD_BREAKS[kind](made.head)
    error, folder = refusal(made)
    line, column = position(made.files()["m.yaml"])
    assert errors_at(error, folder / "m.yaml", line, column), f"{line}:{column}\n{error}\n{made.files()['m.yaml']}"


@settings(PATIENT, max_examples=60)
@given(manifests(), st.data())
def test_a_text_that_is_cut_or_disturbed_is_read_or_refused(made: Made, data: st.DataObject) -> None:
    """Never anything but jobs or errors with a position; a control character always has its own."""
    texts = made.files()
    name = data.draw(st.sampled_from(sorted(texts)))
    at = data.draw(st.integers(0, len(texts[name])))
    end = data.draw(st.integers(at, min(len(texts[name]), at + 20)))
    put = data.draw(
        st.sampled_from(["", "\0", "\x1b", "[", "{", '"', "'", ":", "*a", "&a", "!!x ", "\t", "\n", "---\n", "${"])
    )
    broken = texts[name][:at] + put + texts[name][end:]
    with written(made) as path:
        (path.parent / name).write_bytes(broken.encode())
        found = findings_of(path, made)
    if found:
        assert all(f.line >= 1 and f.column >= 1 and f.message for f in found)
    if put in ("\0", "\x1b"):
        where = broken.count("\n", 0, at) + 1, at - broken.rfind("\n", 0, at)
        assert [(f.file, f.line, f.column) for f in found] == [(str(path.parent / name), *where)]


def findings_of(path: Path, made: Made) -> list[Finding]:
    """The errors of a manifest; none where all its jobs can be made."""
    try:
        manifest = load(path, profile=made.profile)
    except ManifestError as error:
        errors = [f for f in error.findings if not f.warning]
    else:
        errors = []
        assert len(list(manifest.jobs)) == len(manifest.jobs)
    return errors
