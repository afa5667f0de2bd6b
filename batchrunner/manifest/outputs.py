"""Names of output files: safe on every file system, and no two jobs with one name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from ..core.names import COMMON
from ..core.places import PACKAGES, is_url
from .findings import did_you_mean, quoted
from .scalars import to_text
from .templates import NoValue, TemplateError, fill, split

MAX_COMPONENT = 240
"""Bytes of one part of a path: 255, less what `.json` and `.part` beside the file and an extension take."""
MAX_PATH = 1024
"""Bytes of a whole relative path."""

_UNSAFE_VALUE = re.compile(r"[^\w.=+@-]")
_UNSAFE_TEXT = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [
        f"{port}{n}"
        for port in ("com", "lpt")
        for n in (*range(10), "\N{SUPERSCRIPT ONE}", "\N{SUPERSCRIPT TWO}", "\N{SUPERSCRIPT THREE}")
    ]
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
COMPANIONS = (".json", ".part")
"""What stands beside an output under its name, each 5 characters; no other output may be named so."""


def safe_value(value: Any) -> str:
    """A value as it stands in a file name: everything but letters, digits and `. _ = + @ -` becomes `_`."""
    text = to_text(value)
    if text.isascii():
        return _UNSAFE_VALUE.sub("_", text)
    return _UNSAFE_VALUE.sub(_unless_mark, unicodedata.normalize("NFC", text))


def _unless_mark(found: re.Match[str]) -> str:
    """Vowel signs and other marks belong to the letters of many scripts."""
    return found.group() if unicodedata.category(found.group())[0] == "M" else "_"


def path_problem(path: str) -> str | None:
    """Why a relative path with `/` between its parts is refused, or None."""
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path):
        return f"{quoted(path)} is an absolute path; a path relative to the manifest's folder is allowed"
    bad = _UNSAFE_TEXT.search(path)
    if bad:
        return (
            f"{quoted(path)} contains {quoted(bad.group())}, which is not allowed in a file name; '/' separates folders"
        )
    for part in path.split("/"):
        problem = _part_problem(part)
        if problem:
            return f"{quoted(path)} {problem}"
    if len(path.encode()) > MAX_PATH:
        return f"{quoted(path)} is too long: at most {MAX_PATH} bytes are allowed"
    return None


def _part_problem(part: str) -> str | None:
    if part == "":
        return "has an empty part: a name must stand between, before and after each '/'"
    if part in (".", ".."):
        return f"contains {quoted(part)}, which is not allowed; outputs stay in their folder"
    if part[-1] in ". " or part[0] == " ":
        return "has a part that begins with a space or ends with a dot or a space, which is not allowed"
    if part.split(".", 1)[0].rstrip().casefold() in _RESERVED:
        return f"contains {quoted(part)}, a name that some systems reserve for a device"
    if len(part.encode()) > MAX_COMPONENT:
        return f"has a part of {len(part.encode())} bytes; at most {MAX_COMPONENT} are allowed"
    if not part.isprintable():
        return "contains a character that can't be seen"
    return None


def folder(template: str, variables: Mapping[str, Any]) -> str:
    """`output.dir`, filled in and checked: a path, or the URL of a prefix in object storage.

    Raises:
        TemplateError: an unknown variable, or a path that is refused.
    """
    safe = {name: safe_value(value) for name, value in variables.items()}
    path = fill(template, safe)
    if is_url(path):
        return _object_url(path)
    path = path.rstrip("/") or "/"
    path = path.removeprefix("./")
    if path != ".":
        problem = path_problem(path)
        if problem:
            raise TemplateError("output.dir " + problem)
    return path


def _object_url(url: str) -> str:
    """A prefix in object storage, normal and checked. What may be a credential is not repeated.

    Raises:
        TemplateError: it is refused.
    """
    scheme, _, path = url.partition("://")
    scheme, path = scheme.lower(), path.removesuffix("/")
    bucket = path.partition("/")[0]
    if scheme not in PACKAGES:
        hint = did_you_mean(scheme, PACKAGES)
        allowed = ", ".join(f"{name}://" for name in PACKAGES)
        raise TemplateError(f"output.dir: {quoted(scheme)}:// is not known{hint}; {allowed} or a folder is allowed")
    if "@" in bucket or ":" in bucket:
        raise TemplateError(
            "output.dir has credentials or a server in its URL: they belong into the environment (AWS_ACCESS_KEY_ID, "
            f"AWS_ENDPOINT_URL_S3, ...), and are stored nowhere; {scheme}://bucket/prefix is allowed"
        )
    if "?" in path or "#" in path:
        raise TemplateError(
            f"output.dir: a URL of object storage has no query and no fragment; {scheme}://bucket/prefix is allowed"
        )
    if not _BUCKET.fullmatch(bucket):
        raise TemplateError(
            f"output.dir: {quoted(bucket)} is no name of a bucket: 3 to 63 of a-z, 0-9, '.', '_' and '-' are allowed"
        )
    if problem := path_problem(path):
        raise TemplateError("output.dir " + problem)
    return f"{scheme}://{path}"


class NameTemplate:
    """`output.name`, taken apart once."""

    def __init__(self, template: str) -> None:
        """Raises TemplateError: a `${` without its end."""
        self._parts = split(template)
        self.common = not self.names.isdisjoint(COMMON)
        """Whether it has a common name, such as `aspect_ratio`, in it."""

    @property
    def names(self) -> frozenset[str]:
        """The variables in it."""
        return frozenset(p[0] for p in self._parts if isinstance(p, tuple))

    def render(self, *layers: Mapping[str, Any]) -> str:
        """The file name for one job, unchecked.

        Args:
            layers: where values are looked up, the first that has the name wins.

        Raises:
            NoValue: a name that has no value.
        """
        out: list[str] = []
        for part in self._parts:
            if sum(map(len, out)) > MAX_PATH:
                break  # refused already, and values can be long
            if isinstance(part, str):
                out.append(part)
                continue
            name = part[0]
            for layer in layers:
                if name in layer:
                    out.append(safe_value(layer[name]))
                    break
            else:
                raise NoValue(name, {n for layer in layers for n in layer})
        return "".join(out)


def normal(path: str) -> str:
    """What two paths share that some file system takes for one: case folded, characters composed."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


class Names:
    """The output paths of a manifest. Holds a number for each job, not its name.

    Equal numbers are only a suspicion; `suspects` are confirmed by walking the jobs again. No output can be
    another's folder: values can't contain `/`, so that all have equally many parts.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._like_companions: set[str] = set()
        self.suspects: set[str] = set()
        """Normal paths that may be taken twice, or by a file and by another's companion."""

    def add(self, path: str) -> None:
        """One job's output."""
        name = normal(path)
        number = hash(name)
        if number in self._seen:
            self.suspects.add(name)
        self._seen.add(number)
        if name.endswith(COMPANIONS):
            self._like_companions.add(name)

    def finish(self) -> None:
        """Look for outputs that are another's companion file."""
        for name in self._like_companions:
            for base in principals(name):
                if hash(base) in self._seen:
                    self.suspects.update((name, base))


def principals(name: str) -> list[str]:
    """The outputs that `name` would be a companion file of: `a.mp4` for `a.mp4.json`."""
    found = []
    while name.endswith(COMPANIONS):
        name = name[:-5]
        found.append(name)
    return found
