"""Telling how a run ended: real sockets, real programs, and nothing that goes wrong there changes anything."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core.notice import (
    EVERY,
    PROBLEMS,
    Command,
    Mail,
    Notice,
    Outcome,
    Sink,
    Webhook,
    address_problem,
)
from batchrunner.notify import ALLOW_COMMANDS, problems, tell
from batchrunner.notify.ways import payload, slack_payload

NOTICE = Notice(
    Outcome.FAILED,
    1,
    "night: done, some failed: 2 succeeded, 1 failed",
    ["night: 3 jobs", "  <!channel> & `x`"],
    {"batches": [{"batch": "night"}], "stop": None},
)
SECRET = "s3cr3t-0123456789"


class Seen:
    """A server that remembers what it was sent, and answers as it is told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.wait: threading.Event | None = None
        self.asked = threading.Event()

    def go(self) -> bool:
        """Answer those who wait."""
        if self.wait is not None:
            self.wait.set()
        return True

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def listening() -> Iterator[Seen]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.requests.append((self.path, dict(self.headers), body))
            seen.asked.set()
            if seen.wait is not None:
                seen.wait.wait(30)
            self.send_response(seen.status)
            for name, value in seen.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen = Seen(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield seen
    finally:
        seen.go()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Seen]:
    with listening() as seen:
        yield seen


def told(*sinks: Sink, notice: Notice = NOTICE, **environment: str) -> list[str]:
    return asyncio.run(tell(sinks, notice, {**os.environ, ALLOW_COMMANDS: "1", **environment}))


# --- Webhooks --------------------------------------------------------------------------------------------


def test_a_webhook_gets_all_of_it_as_json(server: Seen) -> None:
    assert told(Sink(Webhook(server.url("/a?token=1")))) == []
    [(path, headers, body)] = server.requests
    assert path == "/a?token=1"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "event": "run_ended",
        "outcome": "failed",
        "exit_code": 1,
        "title": NOTICE.title,
        "summary": "night: 3 jobs\n  <!channel> & `x`",
        "batches": [{"batch": "night"}],
        "stop": None,
    }


def test_the_shape_that_slack_takes(server: Seen) -> None:
    assert told(Sink(Webhook(url_env="HOOK", slack=True)), HOOK=server.url()) == []
    text = json.loads(server.requests[0][2])
    assert text == {"text": NOTICE.title + "\n```\nnight: 3 jobs\n  &lt;!channel&gt; &amp; 'x'\n```"}


def test_a_long_summary_is_cut_for_a_chat_and_not_for_a_program() -> None:
    notice = Notice(Outcome.FAILED, 1, "t", ["x" * 100_000])
    assert len(slack_payload(notice)["text"]) < 3100
    assert len(payload(notice)["summary"]) == 100_000
    assert slack_payload(Notice(Outcome.BUSY, 5, "t"))["text"] == "t"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(server: Seen, status: int) -> None:
    with listening() as elsewhere:
        server.status, server.headers = status, {"Location": elsewhere.url()}
        assert told(Sink(Webhook(server.url()))) == [f"the webhook at 127.0.0.1 answered {status}"]
        assert elsewhere.requests == []


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_a_refusal_is_said(server: Seen, status: int) -> None:
    server.status = status
    assert told(Sink(Webhook(server.url()))) == [f"the webhook at 127.0.0.1 answered {status}"]


def test_nobody_there_is_said_without_the_address() -> None:
    with listening() as gone:
        url = gone.url(f"/services/{SECRET}")
    [said] = told(Sink(Webhook(url_env="HOOK")), HOOK=url)
    assert said.startswith("the webhook at 127.0.0.1: no connection")
    assert SECRET not in said


def test_one_that_does_not_answer_is_given_up(server: Seen) -> None:
    server.wait = threading.Event()
    [said] = told(Sink(Webhook(server.url(f"/{SECRET}")), patience=0.2))
    assert said == "the webhook: not done after 0.2 s"
    assert server.asked.is_set()


def test_all_are_told_side_by_side_and_one_failure_is_one(server: Seen, tmp_path: Path) -> None:
    """The first hangs until the last was told."""
    server.wait = threading.Event()
    with listening() as other:
        slow, quick = Sink(Webhook(server.url()), patience=30.0), Sink(Webhook(other.url()))
        missing = Sink(Command((str(tmp_path / "nothing"),)))
        waiting = threading.Thread(target=lambda: other.asked.wait(30) and server.go())
        waiting.start()
        said = told(slow, missing, quick)
        waiting.join()
    assert len(server.requests) == len(other.requests) == 1
    assert said == [f"the command {tmp_path}/nothing: No such file or directory"]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_those_who_asked(server: Seen, outcome: Outcome) -> None:
    sinks = [Sink(Webhook(server.url(f"/{n}")), on) for n, on in enumerate((EVERY, PROBLEMS, frozenset({outcome})))]
    assert told(*sinks, notice=Notice(outcome, 0, "t")) == []
    wanted = {"/0", "/2"} | ({"/1"} if outcome not in {Outcome.SUCCEEDED, Outcome.INTERRUPTED} else set())
    assert {path for path, _, _ in server.requests} == wanted


@pytest.mark.parametrize(
    "url",
    [
        f"http://example.com/{SECRET}",
        f"ftp://example.com/{SECRET}",
        f"https://user:{SECRET}@example.com/",
        f"https://{SECRET}@example.com/",
        f"https:///{SECRET}",
        f"https://example.com/{SECRET}\r\nX-Evil: 1",
        f"https://example.com/{SECRET} x",
        f"https://exämple.com/{SECRET}",
        f"https://[::1/{SECRET}",
        f"https://example.com:port/{SECRET}",
        f"file:///etc/{SECRET}",
        SECRET,
    ],
)
def test_an_address_that_cannot_be_used_is_not_shown(url: str) -> None:
    assert address_problem(url)
    sink = Sink(Webhook(url_env="HOOK"))
    for said in (problems([sink], {"HOOK": url}), told(sink, HOOK=url)):
        assert len(said) == 1
        assert said[0].startswith("the webhook of HOOK: it ")
        assert SECRET not in said[0]


def test_a_variable_that_is_not_set_is_said_before_the_run() -> None:
    assert problems([Sink(Webhook(url_env="HOOK"))], {}) == ["the webhook of HOOK: it is not set"]
    assert problems([Sink(Webhook("https://x.test/"))], {}) == []


def test_a_secret_is_in_no_repr() -> None:
    assert SECRET not in repr(Sink(Webhook(f"https://x.test/{SECRET}")))


# --- Commands --------------------------------------------------------------------------------------------


def script(folder: Path, text: str, name: str = "tell") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_command_reads_the_summary_and_never_the_key(tmp_path: Path) -> None:
    program = script(tmp_path, f'cat > {tmp_path}/in; env > {tmp_path}/env; printf "%s\\n" "$@" > {tmp_path}/args')
    words = (program, "$(touch pwned)", "; rm -rf x", "*")

    assert told(Sink(Command(words)), REAPI_API_KEY=SECRET, REAPI_KEY=SECRET, HOOK="h") == []

    assert (tmp_path / "in").read_text() == f"{NOTICE.title}\n\nnight: 3 jobs\n  <!channel> & `x`\n"
    assert (tmp_path / "args").read_text().splitlines() == list(words[1:]), "no shell has seen them"
    environment = (tmp_path / "env").read_text()
    assert SECRET not in environment
    assert "BATCHRUNNER_OUTCOME=failed" in environment
    assert "BATCHRUNNER_EXIT_CODE=1" in environment
    assert "HOOK=h" in environment


def test_a_command_that_wants_json(tmp_path: Path) -> None:
    program = script(tmp_path, f"cat > {tmp_path}/in")
    assert told(Sink(Command((program,), json=True))) == []
    assert json.loads((tmp_path / "in").read_text()) == payload(NOTICE)


@pytest.mark.parametrize(
    ("text", "said"), [("exit 3", "ended with 3"), ("kill -9 $$", "ended with -9"), ("exec 0<&-; exit 0", "")]
)
def test_how_a_command_ends(tmp_path: Path, text: str, said: str) -> None:
    """The last one reads nothing of a summary that is larger than a pipe."""
    notice = Notice(Outcome.FAILED, 1, "t", ["x" * 1_000_000])
    found = told(Sink(Command((script(tmp_path, text),))), notice=notice)
    assert [said in line for line in found] == ([True] if said else [])


def test_a_command_that_hangs_dies_with_all_that_it_has_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        program = script(tmp_path, f"sleep 600 > {fifo} & echo $! ; wait")
        [said] = told(Sink(Command((program,)), patience=0.5))
        assert said == f"the command {program}: not done after 0.5 s"
        os.set_blocking(held, True)
        assert os.read(held, 1) == b"", "the last writer has gone"
    finally:
        os.close(held)


def test_a_manifests_command_needs_leave_and_ones_own_does_not(tmp_path: Path) -> None:
    command = Command((script(tmp_path, f"touch {tmp_path}/ran"),))
    for value in ("", "0", "yes"):
        [said] = told(Sink(command), BATCHRUNNER_ALLOW_COMMANDS=value)
        assert ALLOW_COMMANDS in said
        assert problems([Sink(command)], {ALLOW_COMMANDS: value}) == [said]
    assert not (tmp_path / "ran").exists()
    assert told(Sink(command, trusted=True), BATCHRUNNER_ALLOW_COMMANDS="") == []
    assert (tmp_path / "ran").exists()


# --- Mail ------------------------------------------------------------------------------------------------


def test_mail_goes_to_sendmail(tmp_path: Path) -> None:
    script(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/args; cat > {tmp_path}/mail', "sendmail")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    notice = Notice(Outcome.FAILED, 1, "nächt: 1 failed " + "x" * 300, ["über\\x1b[31m", "."])

    assert told(Sink(Mail(("me@example.com", "root"), "studio@example.com")), notice=notice, PATH=path) == []

    assert (tmp_path / "args").read_text().split() == ["-i", "--", "me@example.com", "root"]
    message = email.message_from_bytes((tmp_path / "mail").read_bytes(), policy=email.policy.default)
    assert message["To"] == "me@example.com, root"
    assert message["From"] == "studio@example.com"
    assert message["Subject"] == notice.title
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content() == f"{notice.title}\n\nüber\\x1b[31m\n.\n"


def test_no_text_becomes_a_header(tmp_path: Path) -> None:
    script(tmp_path, f"cat > {tmp_path}/mail", "sendmail")
    notice = Notice(Outcome.FAILED, 1, "night\r\nBcc: evil@example.com\r\n\r\nbody", [])
    told(Sink(Mail(("me@example.com",))), notice=notice, PATH=f"{tmp_path}:{os.environ['PATH']}")
    if (tmp_path / "mail").exists():
        assert "Bcc" not in email.message_from_bytes((tmp_path / "mail").read_bytes())


def test_a_machine_without_sendmail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrunner.notify.ways.SENDMAIL_FOLDERS", (str(tmp_path),))
    [said] = told(Sink(Mail(("me@example.com",))), PATH=str(tmp_path))
    assert said == "the mail to me@example.com: there is no sendmail on this machine"


def test_sendmail_that_refuses(tmp_path: Path) -> None:
    script(tmp_path, "exit 75", "sendmail")
    [said] = told(Sink(Mail(("me@example.com",))), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert said == "the command sendmail ended with 75"
