"""Where a manifest's shots come from: its own list, included files, CSV and JSONL tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .events import read_yaml
from .findings import Report, Stop, quoted
from .layers import place_of
from .located import Document, Map, Node, Place, Seq
from .reading import MAX_FILE, MAX_TOTAL, check_text, inside, read_bytes
from .rows_csv import read_csv
from .rows_jsonl import read_jsonl
from .schema_errors import Explainer, gate
from .templates import OPEN, TemplateError, fill

MAX_FILES = 1000
MAX_INCLUDE_DEPTH = 8


@dataclass(slots=True)
class Sources:
    """Reads the files of one manifest.

    Attributes:
        root: absolute, resolved folder of the manifest; nothing outside is read.
        spelled: that folder as the user spelled it, for findings.
        variables: what may stand in a file's name.
        columns: every shot key and request field, the usual ones first, for the header of a CSV.
        schema: the manifest's schema.
        lists: the shots found, list by list, in the manifest's order.
        total: bytes read.
        collections: mappings and lists read, the manifest's own included.
    """

    root: str
    spelled: str
    report: Report
    variables: Mapping[str, Any]
    columns: Collection[str]
    schema: Mapping[str, Any]
    lists: list[Node] = field(default_factory=list)
    total: int = 0
    collections: int = 0
    _read: dict[str, str] = field(default_factory=dict)

    def collect(self, node: Node, folder: str, trail: tuple[str, ...]) -> None:
        """The shots of one file, in the order of its keys `shots`, `shots_from` and `include`.

        Args:
            node: the file's root, a mapping.
            folder: the file's folder, relative to the root folder.
            trail: the files that led here, the first manifest first (relative paths).
        """
        actions: dict[str, Callable[[Node, str, tuple[str, ...]], None]] = {
            "shots": self._shots,
            "shots_from": self._tables,
            "include": self._includes,
        }
        for key, value in node.value.items():
            if key in actions and isinstance(value, Seq):
                actions[key](node.child(key), folder, trail)

    def _shots(self, node: Node, _folder: str, _trail: tuple[str, ...]) -> None:
        self.lists.append(node)

    def _tables(self, node: Node, folder: str, _trail: tuple[str, ...]) -> None:
        for i, entry in enumerate(node.value):
            if not isinstance(entry, Map) or not isinstance(entry.get("file"), str) or not entry["file"]:
                continue
            here = node.child(i)
            found = self._locate(here.at("file"), entry["file"], folder, ())
            if found is None:
                continue
            relative, document = found
            kind = entry.get("format") or os.path.splitext(relative)[1].lower().removeprefix(".")
            if kind in ("ndjson", "jsonl"):
                self._table(document, relative, read_jsonl)
            elif kind == "csv":
                self._table(document, relative, lambda d, data, report: read_csv(d, data, report, self.columns))
            else:
                self.report.error(
                    here.at("file"), f"can't tell how to read {quoted(relative)}: add format: csv or format: jsonl"
                )

    def _table(self, document: Document, relative: str, read: Callable[[Document, bytes, Report], None]) -> None:
        try:
            data = self._data(document, relative)
            read(document, data, self.report)
        except Stop:
            return
        finally:
            self.collections = document.collections
        self.lists.append(Node(document, document.root, document.prefix))

    def _includes(self, node: Node, folder: str, trail: tuple[str, ...]) -> None:
        for i, name in enumerate(node.value):
            if not isinstance(name, str) or not name:
                continue
            place = node.at(i)
            if len(trail) >= MAX_INCLUDE_DEPTH:
                self.report.error(place, f"included too deeply: at most {MAX_INCLUDE_DEPTH} files one in another")
                continue
            found = self._locate(place, name, folder, trail)
            if found is not None:
                self._include(*found, (*trail, found[0]))

    def _include(self, relative: str, document: Document, trail: tuple[str, ...]) -> None:
        before = self.report.errors
        try:
            data = self._data(document, relative)
            check_text(document, data, self.report)
            read_yaml(document, data, self.report)
        except Stop:
            return
        finally:
            self.collections = document.collections
        del data
        if not isinstance(document.root, Map):
            self.report.error_at(document, 1, 1, "the file must be a mapping with the key shots, shots_from or include")
            return
        root = Node(document, document.root)
        check_head(root, self.schema, "shotsFile", self.report, broken=self.report.errors != before)
        self.collect(root, os.path.dirname(relative), trail)

    def _data(self, document: Document, relative: str) -> bytes:
        data = read_bytes(document, os.path.join(self.root, relative), self.report, MAX_FILE)
        self.total += len(data)
        if self.total > MAX_TOTAL:
            self.report.error_at(
                document, 1, 1, f"too much to read: a manifest and its files may have {MAX_TOTAL >> 20} MiB together"
            )
            raise Stop
        return data

    def _locate(self, place: Place, name: str, folder: str, trail: tuple[str, ...]) -> tuple[str, Document] | None:
        """The path relative to the root folder and a document to read into; None where it was refused."""
        try:
            name = fill(name, self.variables) if OPEN in name else name
        except TemplateError as error:
            self.report.error(place, str(error))
            return None
        relative, problem = inside(self.root, folder, name)
        if problem is None:
            if relative in trail:
                problem = (
                    f"{quoted(relative)} includes itself: {' -> '.join([*trail[trail.index(relative) :], relative])}"
                )
            elif relative in self._read:
                problem = f"{quoted(relative)} was read already, at {self._read[relative]}"
            elif len(self._read) >= MAX_FILES:
                problem = f"too many files: at most {MAX_FILES} are read"
        if problem is None:
            real = os.path.join(self.root, relative)
            if not os.path.lexists(real):
                problem = f"there is no file {quoted(relative)} in the manifest's folder"
        if problem is not None:
            self.report.error(place, problem)
            return None
        line, column = place.position()
        self._read[relative] = f"{place.document.name}:{line}:{column}"
        return relative, Document(os.path.join(self.spelled, relative), collections=self.collections)


_CHECKS: dict[str, tuple[Any, Explainer]] = {}


def check_head(node: Node, schema: Mapping[str, Any], definition: str, report: Report, broken: bool) -> None:
    """Check everything of a file but its shots, which are checked one by one.

    Args:
        node: the root.
        schema: the manifest's schema.
        definition: `shotsFile`, or `""` for the manifest itself.
        report: where problems go.
        broken: entries were left out already, so that nothing is said of missing keys.
    """
    if definition not in _CHECKS:
        part = {"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]} if definition else schema
        _CHECKS[definition] = (gate(part), Explainer(part))
    fast, explainer = _CHECKS[definition]
    shots = node.value.get("shots")
    head = {**node.value, "shots": []} if isinstance(shots, Seq) else dict(node.value)
    if fast.is_valid(head):
        return
    for problem in explainer.problems(head, "the file" if definition else "the manifest"):
        if not (broken and (" is required" in problem.message or " needs " in problem.message)):
            report.error(place_of(node, problem), problem.message)
