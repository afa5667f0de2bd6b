"""What a test sees of a page: see `new_page` in conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]  # it has none
from playwright.async_api import ConsoleMessage, Page, Request


@dataclass  # without slots: Playwright keeps its wrappers of our handlers in the object
class Watched:
    """What a page said and asked for behind the reader's back.

    Attributes:
        errors: errors and warnings of the console (a broken Content-Security-Policy is one), and uncaught exceptions.
        requests: every URL that was asked for, the page itself included.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text}")

    def _exception(self, error: Exception) -> None:
        self.errors.append(f"exception: {error}")

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", self._exception)
        self.page.on("request", self._request)

    def outside(self) -> list[str]:
        """What it asked for beyond this machine."""
        ours = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:", "http://localhost:")
        return [url for url in self.requests if not url.startswith(ours)]

    async def findings(self) -> list[str]:
        """What axe-core finds wrong, serious and critical (dequeuniversity.com/rules/axe)."""
        results = await Axe().run(self.page, options={"preload": False})  # which a file URL may not do
        return [
            f"{v['id']} ({v['impact']}): {v['help']}: {[node['html'][:200] for node in v['nodes'][:3]]}"
            for v in results.response["violations"]
            if v["impact"] in ("serious", "critical")
        ]


NewPage = Callable[..., Coroutine[Any, Any, Watched]]
