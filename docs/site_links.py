"""A hook of MkDocs: what a page links outside docs/, such as code and schemas, is shown there as its name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)\s]+|[^):\s]+\.(?:py|yaml|json)|examples/[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called with each page's text before it is rendered (mkdocs.org, Plugins, Page Events)."""
    folder = PurePosixPath(page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        target = match[2].split("#")[0]
        depth = len(folder.parts)
        outside = target.count("../") > depth or not target.endswith((".md", ".png", ".svg"))
        return match[1] if outside else match[0]

    return LINK.sub(shown, markdown)
