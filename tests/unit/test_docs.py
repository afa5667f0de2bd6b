"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from batchrunner import exits
from batchrunner.cli.ledger import ledger
from batchrunner.cli.main import COMMANDS
from batchrunner.core.job import State
from batchrunner.core.lifecycle import TABLE
from batchrunner.manifest import read_models
from docs import make_models, make_providers, make_reference, site_hooks

ROOT = Path(__file__).resolve().parents[2]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_of_the_states_is_that_of_the_table() -> None:
    page: str = _load(ROOT / "docs" / "make_states.py").page()
    assert (ROOT / "docs" / "states.md").read_text("utf-8") == page, "run: python docs/make_states.py"


def test_the_table_of_models_is_that_of_the_catalogue() -> None:
    assert make_models.PAGE.read_text("utf-8") == make_models.page(), "run: python -m docs.make_models"
    assert make_providers.PAGE.read_text("utf-8") == make_providers.page(), "run: python -m docs.make_providers"


@pytest.mark.parametrize("path", make_reference.pages(), ids=lambda path: str(path.name))
def test_the_reference_is_that_of_the_command_line_and_the_schema(path: Path) -> None:
    assert path.read_text("utf-8") == make_reference.pages()[path], "run: python -m docs.make_reference"


def test_the_table_of_exit_codes_has_those_that_there_are() -> None:
    told = [int(code) for row in make_reference.exit_code_rows() for code in row[0].split(", ")]
    assert sorted(told) == sorted(value for name, value in vars(exits).items() if name.startswith("EXIT_"))


def test_the_man_page_has_no_line_that_troff_would_take_for_a_request_of_its_own() -> None:
    known = {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".I", ".EX", ".EE", '.\\"'}
    requests = {line.split()[0] for line in make_reference.man().splitlines() if line.startswith((".", "'"))}
    assert requests <= known
    verbs = [line for line in make_reference.man().splitlines() if line.startswith(".SS ")]
    assert len(verbs) == len(COMMANDS) + len(ledger.commands)


def test_the_site_draws_every_state_and_every_arrow() -> None:
    drawn = site_hooks.drawing((ROOT / "docs" / "states.md").read_text("utf-8"))
    assert all(f">{state.value}</text>" in drawn for state in State)
    arrows = {(before, after) for (before, _), afters in TABLE.items() for after in afters}
    assert drawn.count("marker-end") == len(arrows)


def test_a_page_of_the_site_that_loads_something_from_elsewhere_is_refused() -> None:
    page = mock.Mock(url="howto/budgets.html")
    shown = site_hooks.on_post_page(f'<script src="{site_hooks.SHIM}"></script><a href="https://x.test">', page=page)
    assert shown == '<script src="../theme/iframe-worker.js"></script><a href="https://x.test">'
    shown = site_hooks.on_post_template(f'<script src="{site_hooks.SHIM}"></script>', template_name="404.html")
    assert shown == '<script src="/theme/iframe-worker.js"></script>'
    for tag in ('<script src="https://x.test/a.js">', '<link rel="stylesheet" href=//x.test/a.css>'):
        with pytest.raises(ValueError, match="from elsewhere"):
            site_hooks.on_post_page(tag, page=page)


def test_every_page_is_on_the_site() -> None:
    import yaml

    def named(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry if isinstance(entry, list) else list(entry.values()) if isinstance(entry, dict) else []
        return [name for part in parts for name in named(part)]

    nav = named(yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert sorted(nav) == sorted(str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md"))


def test_the_model_that_is_shown_how_to_add_is_a_good_one(tmp_path: Path) -> None:
    block = make_models.PAGE.read_text("utf-8").split("```json\n")[1].split("```")[0]
    (tmp_path / "dream-9.schema.json").write_text(block, "utf-8")
    dream = read_models(tmp_path)["dream-9"]
    assert dream.price is not None
    assert dream.price.credits({"quality": "high", "len": 5}, dream.defaults) == 200  # 0.04 x 5 s
    assert dream.price.credits({"start": "https://example.com/a.png"}, dream.defaults) == 32  # 0.008 x 4 s


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    import re

    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    dead = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert not dead


def test_the_ci_script_calls_the_readme_test_command_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    commands = [line for line in script if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]
    assert "make test" in (ROOT / "README.md").read_text("utf-8")
