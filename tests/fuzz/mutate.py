"""Mutations that know words and lines. Bytes turned at random make YAML that is refused in its first line, and answers
that prove nothing; half of the inputs are therefore made by changing a word or a line of one that is valid."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
_WORD = re.compile(rb"\$?\$\{[^{}\n]*\}|[\w./:-]+|[^\s\w]")
_VALUES = [
    *b"1 0 -1 3 15 16 1.5 1e3 true null 720p 1080p 16:9 kling-3-0-turbo x a.b A con ../x ~ .nan ${shot}".split(),
    *b"${take} ${batch} ${model} ${job} ${p} $${ ${ [] {} [a,b] [1,2,3] {a:b} 'a b' &a *a t.csv t.jsonl t.yaml".split(),
    "é".encode(),
    "\u202e".encode(),
    b'"\\x1b"',
    b"99999999999999999999",
    b'"' + b"x" * 80 + b'"',
]
Mutate = Callable[[bytes, int], bytes]


def accepted(target: str, valid: Callable[[bytes], bool]) -> list[bytes]:
    """The kept inputs that are valid."""
    return [data for path in sorted((CORPUS / target).iterdir()) if valid(data := path.read_bytes())]


def mutate(data: bytes, size: int, seed: int, whole: Sequence[bytes], at_random: Mutate) -> bytes:
    """One step away from `data`, or from one of the `whole` ones; at most `size` bytes."""
    rng = random.Random(seed)
    if not whole or rng.random() < 0.4:
        return at_random(data, size)
    if rng.random() < 0.6:
        data = rng.choice(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        change = rng.choice([_words, _words, _lines])
        data = change(data, rng, rng.choice(whole))
    return data[:size]


def _words(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Put another word in the place of one: of a list, of this text or of another."""
    found = list(_WORD.finditer(data))
    if not found:
        return data
    place = rng.choice(found)
    others: list[bytes] = _WORD.findall(other)
    pool = rng.choice([_VALUES, [m.group() for m in found], others or _VALUES])
    return data[: place.start()] + rng.choice(pool) + data[place.end() :]


def _lines(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Leave a line out, repeat it, move it, or take one of another text."""
    lines = data.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines.insert(to, lines.pop(at))
        case _:
            lines.insert(to, rng.choice(other.split(b"\n")))
    return b"\n".join(lines)
