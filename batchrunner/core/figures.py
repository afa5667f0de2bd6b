"""Money, counts and times as people read them, on a terminal and in the report."""

from __future__ import annotations

from typing import Any

from .pricing import usd_text


def number(value: int) -> str:
    """12500 -> `12,500`."""
    return f"{value:,}"


def dollars(credits: int) -> str:  # noqa: A002
    """630 -> `$0.63`, 2920680 -> `$2,920.68`."""
    whole, _, cents = usd_text(credits).partition(".")
    return f"${int(whole):,}.{cents}"


def money(credits: int | None) -> str:  # noqa: A002
    """630 -> `630 credits ($0.63)`."""
    if credits is None:
        return "an unknown price"
    return f"{number(credits)} credit{'s' if credits != 1 else ''} ({dollars(credits)})"


def counted(count: int, noun: str) -> str:
    """`1 job`, `3 jobs`, `2 batches`."""
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number(count)} {noun if count == 1 else plural}"


def local_time(at: float | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Unix seconds as local time, `2026-11-22 06:00:00`; `form` is strftime's."""
    import datetime

    if at is None:
        return ""
    return datetime.datetime.fromtimestamp(at).astimezone().strftime(form)  # people read their own time


def utc_time(at: float | None) -> str:
    """Unix seconds as ISO 8601 in UTC, for files."""
    import datetime

    if at is None:
        return ""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """A duration for people: `45 s`, `12 min`, `3 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def media_words(media: dict[str, Any]) -> str:
    """What a file's headers say, from `media` of `jobs --json`: `1280x720, 5 s, h264, with sound`."""
    size = f"{media['width']}x{media['height']}" if media["width"] else None
    length = f"{media['duration_s']:g} s" if media["duration_s"] else None
    fps = f"{media['fps']:g} pictures a second" if media.get("fps") else None
    sound = None if media.get("audio") is None else "with sound" if media["audio"] else "without sound"
    frames = f"decoded to its last picture, {number(media['frames'])} in all" if media.get("frames") else None
    return ", ".join(fact for fact in (size, length, media["codec"], fps, sound, frames) if fact)
