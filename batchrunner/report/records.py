"""A job as the page's grid reads it: plain JSON, small, every text of others already made visible."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..core.figures import local_time, media_words, span
from ..core.morning import Entry
from ..core.text import visible
from .clips import Clip
from .commands import word

LONGEST = 4000
"""Characters of a prompt or message that the page shows; `show JOB` has all of it."""


def shown(text: str, limit: int = LONGEST) -> str:
    """Text of others for a page: only what can't reorder or hide anything, with lines and tabs kept."""
    return visible(text.replace("\r\n", "\n"), limit, keep="\n\t")


def records(entries: Sequence[Entry], clips: Sequence[Sequence[Clip]]) -> Iterator[dict[str, Any]]:
    """A record for each job, what is empty left out."""
    for index, (entry, kept) in enumerate(zip(entries, clips, strict=True)):
        record = {**_of_job(entry), **_of_attempts(entry), "clips": [_of_clip(clip) for clip in kept]}
        yield {"i": index, **_full(record)}


def _of_job(entry: Entry) -> dict[str, Any]:
    job = entry.job
    error, media = job["error"] or {}, job["media"] or {}
    request, source = job["request"], job["promoted_from"]
    kind, code = error.get("kind"), error.get("code")
    return {
        "key": shown(job["job"]),
        "name": word(entry.name) if word(entry.name) != job["job"] else None,
        "shot": shown(job["shot"]),
        "take": job["take"],
        "point": shown(", ".join(f"{name}={_plain(value)}" for name, value in job["matrix"].items())),
        "tags": [shown(tag) for tag in job["tags"]],
        "model": shown(job["model"]),
        "prompt": shown(_plain(request.get("prompt", ""))),
        "fields": [[shown(k), shown(_plain(v))] for k, v in request.items() if k not in ("prompt", "model")],
        "state": job["state"],
        "kind": kind,
        "error": (f"waits for {shown(job['waits_for'])}" if job["waits_for"] else "")
        if not error
        else shown(f"{'' if code is None else f'{code}: '}{error['message']}"),
        "request_id": shown(str(error.get("request_id") or "")),
        "task": shown(job["task_id"] or ""),
        "old": not job["current"],
        "rev": job["revision"] if entry.revised else None,
        "verdict": job["verdict"],
        "source": ""
        if source is None
        else f"{source['job']}, revision {source['revision']}, profile {source['profile']}",
        "media": "" if not media else media_words(media),
        "warn": [shown(warning) for warning in media.get("warnings", ())],
        "sha": job["sha256"],
        "est": entry.estimated,
    }


def _of_attempts(entry: Entry) -> dict[str, Any]:
    last = entry.attempts[-1] if entry.attempts else None
    took = None if last is None else last.took
    return {
        "spent": entry.credits("spent"),
        "open": entry.credits("reserved"),
        "risk": entry.credits("at_risk"),
        "took": None if took is None else round(took, 1),
        "at": None if last is None else round(last.stored_at or last.answered_at or last.sent_at, 1),
        "tries": [
            [
                a.number,
                local_time(a.sent_at),
                a.outcome or "no answer yet",
                a.credits,
                a.money.replace("_", " "),
                shown(a.task_id or ""),
                shown(a.request_id or ""),
                "" if a.took is None else span(a.took),
            ]
            for a in entry.attempts
        ],
    }


def _of_clip(clip: Clip) -> dict[str, Any]:
    return _full(_words_of(clip))


def _full(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value not in (None, "", [], False)}


def _words_of(clip: Clip) -> dict[str, Any]:
    return {
        "show": clip.kind,
        "url": clip.url,
        "path": shown(str(clip.path)),
        "bytes": clip.size,
        "problem": clip.problem,
        "role": clip.role.replace("_", " "),
    }


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def script_json(value: Any) -> str:
    """JSON that may stand in a `<script>` whatever it says: no `<`, so no tag and no comment begins in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
