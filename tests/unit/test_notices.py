"""What `notify:` says, in a manifest and in a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchrunner.core.notice import (
    EVERY,
    PROBLEMS,
    Command,
    Mail,
    Outcome,
    Sink,
    Webhook,
    address_problem,
    kept,
    restored,
)
from batchrunner.manifest import ManifestError, load, load_notices

SHOTS = """
shots:
  - {id: a, prompt: a, model: kling-3-0-turbo}
"""
NOTIFY = """\
notify:
  - webhook: {url_env: STUDIO_WEBHOOK, format: slack}
  - webhook: {url: "http://127.0.0.1:9000/nights"}
    on: always
    timeout: 2.5
  - command: [say, "the night of ${batch} is over", "$${HOME}"]
    input: json
    on: [failed, succeeded]
  - mail: {to: [me@example.com, root], from: studio@example.com}
"""


def test_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text("version: 1\nbatch: night\n" + NOTIFY + SHOTS)
    assert load(path).notify == (
        Sink(Webhook(url_env="STUDIO_WEBHOOK", slack=True), PROBLEMS),
        Sink(Webhook("http://127.0.0.1:9000/nights"), EVERY, 2.5),
        Sink(
            Command(("say", "the night of night is over", "${HOME}"), json=True),
            frozenset({Outcome.FAILED, Outcome.SUCCEEDED}),
        ),
        Sink(Mail(("me@example.com", "root"), "studio@example.com")),
    )


def test_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text("version: 1\nbatch: night" + SHOTS)
    assert load(path).notify == ()


def test_a_file_of_its_own_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "notify.yaml"
    path.write_text("notify:\n  - command: [date]\n")
    assert load_notices(path) == (Sink(Command(("date",)), trusted=True),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("notify:\n  - command: []\n", "notify.yaml:2:14: error: command must have 1 to 100 values"),
        ("notify: []\n", "notify.yaml:1:9: error: notify must have 1 to 20 values"),
        ("version: 1\nnotify:\n - {command: [x]}\n", "notify.yaml:1:1: error: unknown key 'version'"),
        ("notify:\n  - command: ['${batch}']\n", "notify.yaml:2:15: error: unknown variable '${batch}'"),
        ("- x\n", "notify.yaml:1:1: error: the file must be a mapping with the key notify"),
        ("", "notify.yaml:1:1: error: "),
        ("notify: [\n", "notify.yaml:2:1: error: "),
        ("notify:\n  - webhook: {url: https://x.test/rk_canary_0123}\n", "notify.yaml:2:35: error: "),
    ],
)
def test_mistakes_have_a_place(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notify.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        load_notices("notify.yaml", secrets=["rk_canary_0123"])
    assert str(caught.value.findings[0]).startswith(said)
    assert "canary" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        load_notices(tmp_path / "none.yaml")


def test_the_example_of_the_page_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/nightly.md").read_text()
    path = tmp_path / "night.yaml"
    path.write_text("version: 1\nbatch: night\n" + page.partition("```yaml\n")[2].partition("```")[0] + SHOTS)
    assert len(load(path).notify) == 3


def test_what_the_ledger_keeps_of_a_manifests_sinks_comes_back() -> None:
    sinks = (
        Sink(Webhook(url_env="STUDIO_WEBHOOK", slack=True), PROBLEMS),
        Sink(Webhook(url_env="OTHER"), EVERY, 2.5),
        Sink(Command(("say", "it is over"), json=True), frozenset({Outcome.FAILED})),
        Sink(Command(("date",))),
        Sink(Mail(("me@example.com", "root"), "studio@example.com")),
        Sink(Mail(("me@example.com",))),
    )
    assert restored(kept(sinks)) == sinks


def test_an_address_is_not_kept_for_it_may_be_a_secret() -> None:
    text = kept([Sink(Webhook("https://hooks.example.com/T/SECRET")), Sink(Command(("date",), json=False))])
    assert "SECRET" not in text
    assert restored(text) == (Sink(Command(("date",))),)


def test_trust_is_not_kept() -> None:
    assert restored(kept([Sink(Command(("date",)), trusted=True)])) == (Sink(Command(("date",))),)


COMMAND = '"command": {"words": ["date"], "json": false}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "7",
        "[7]",
        "[{}]",
        '[{"command": {"words": ["date"]}, "on": [], "patience": 1}]',
        f'[{{{COMMAND}, "on": ["never"], "patience": 1}}]',
        f'[{{{COMMAND}, "on": [], "patience": "long"}}]',
        f'[{{{COMMAND}, "on": []}}]',
        '[{"webhook": {"url": "https://x.test/"}, "on": [], "patience": 1}]',
        '[{"mail": {"to": ["a"]}, "on": [], "patience": 1}]',
        "[" * 100_000,
    ],
)
def test_nothing_that_was_not_written_so_is_restored(text: str) -> None:
    assert restored(text) == ()


@pytest.mark.parametrize(
    ("url", "because_of"),
    [
        ("https://hooks.example.com/services/T/B/x?y=1", ""),
        ("http://localhost:9/x", ""),
        ("http://[::1]/", ""),
        ("http://127.9.9.9", ""),
        ("https://ex\u00e4mple.com/x", "spaces"),
        ("https://example.com/x\x7f", "spaces"),
        ("https://example.com/x y", "spaces"),
        ("https://[::1/x", "URL"),
        ("https://example.com:port/x", "URL"),
        ("ftp://example.com/x", "a host"),
        ("https:///x", "a host"),
        ("example.com", "a host"),
        ("https://name@example.com/", "password"),
        ("https://:word@example.com/", "password"),
        ("http://example.com/x", "this machine"),
    ],
)
def test_which_addresses_can_be_used_and_what_is_wrong_with_the_others(url: str, because_of: str) -> None:
    found = address_problem(url)
    assert because_of in found
    assert bool(found) is bool(because_of)
