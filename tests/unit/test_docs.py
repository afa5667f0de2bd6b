"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from batchrunner.manifest import read_models
from docs import make_models

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
