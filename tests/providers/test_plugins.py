"""A provider that a package brings: found, listed, used, and told of where it is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchrunner import plugins
from batchrunner.providers.base import ProviderKind
from tests.providers.plugin import ACME, install, write_model

MANIFEST = """\
version: 1
batch: night
provider: acme
shots:
  - {id: dog, model: acme-1, prompt: a dog}
"""


def call(folder: Path, site: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The real command line, with the package installed."""
    kept = {n: v for n, v in os.environ.items() if n not in plugins.key_variables()}
    paths = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, "-m", "batchrunner", *words],
        cwd=folder,
        env={**kept, "PYTHONPATH": paths, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", plugins.SHIPPED)
def test_what_the_list_says_of_a_shipped_provider_is_right(name: str) -> None:
    kind = plugins.load(name)
    assert isinstance(kind, ProviderKind)
    assert (kind.name, kind.keys) == (name, plugins.SHIPPED[name].keys)
    assert kind.base_url.startswith("https://")
    assert kind.source.startswith("https://")


def test_a_package_adds_a_provider(tmp_path: Path) -> None:
    """Listed, its manifest is valid, and a run through it ends well; nothing of this package was changed."""
    site = install(tmp_path)
    write_model(tmp_path / "mine")
    (tmp_path / "m.yaml").write_text(MANIFEST, "utf-8")

    listed = {p["provider"]: p for p in json.loads(call(tmp_path, site, "providers", "--json").stdout)}
    assert listed.keys() == {*plugins.SHIPPED, "acme"}
    assert (listed["acme"]["shipped"], listed["acme"]["keys"], listed["acme"]["key_set"]) == (
        False,
        ["ACME_KEY"],
        False,
    )
    assert listed["acme"]["capabilities"]["cancel"] is True

    ran = call(tmp_path, site, "run", "m.yaml", "--simulate", "--models", "mine", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["states"]["succeeded"] == 1
    assert (tmp_path / "outputs" / "night" / "dog-1.png").is_file()

    paid = call(tmp_path, site, "run", "m.yaml", "--models", "mine")
    assert (paid.returncode, "set ACME_KEY in the environment" in paid.stderr) == (2, True)
    told = call(tmp_path, site, "doctor", "--offline", ACME_KEY="acme_canary_0123456789")
    assert "set in ACME_KEY" in told.stdout
    assert "canary" not in told.stdout + told.stderr


def test_its_key_may_stand_in_no_manifest(tmp_path: Path) -> None:
    site = install(tmp_path)
    (tmp_path / "m.yaml").write_text(MANIFEST.replace("a dog", "acme_canary_0123456789"), "utf-8")
    found = call(tmp_path, site, "validate", "m.yaml", ACME_KEY="acme_canary_0123456789")
    assert found.returncode == 2
    assert "the API key stands here" in found.stderr
    assert "canary" not in found.stdout + found.stderr


@pytest.mark.parametrize("variable", ["FAL_KEY", "REPLICATE_API_TOKEN"])
def test_a_key_of_any_provider_may_stand_in_no_manifest_and_is_shown_nowhere(variable: str, tmp_path: Path) -> None:
    key = "key_canary+9vQ=~7x.Kd2"
    (tmp_path / "m.yaml").write_text(MANIFEST.replace("a dog", f"a {key} dog"), "utf-8")
    for words in (("validate", "m.yaml"), ("run", "m.yaml", "--var", f"x={key}"), ("doctor", "--offline")):
        told = call(tmp_path, tmp_path, *words, **{variable: key})
        assert "canary" not in told.stdout + told.stderr
        assert told.returncode == (0 if words[0] == "doctor" else 2), told.stderr
    assert f"set in {variable}" in told.stdout


def test_a_provider_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    site = install(tmp_path)
    (tmp_path / "m.yaml").write_text(MANIFEST.replace("acme\n", "acmee\n"), "utf-8")
    found = call(tmp_path, site, "validate", "m.yaml")
    assert found.returncode == 2
    assert "m.yaml:3:11: error: unknown provider 'acmee' (did you mean acme?)" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("1 / 0", "the provider acme can't be loaded from batchrunner_acme:KIND: ZeroDivisionError"),
        ("KIND = 5", "its entry point does not name a ProviderKind of its name"),
        (ACME.replace('    name="acme"', '    name="reapi"'), "does not name a ProviderKind of its name"),
    ],
)
def test_a_broken_package_is_told_and_harms_nobody_else(code: str, told: str, tmp_path: Path) -> None:
    site = install(tmp_path, code)
    listed = call(tmp_path, site, "providers", "--json")
    assert (listed.returncode, told in listed.stderr) == (0, True)
    assert {p["provider"] for p in json.loads(listed.stdout)} == set(plugins.SHIPPED)
    assert call(tmp_path, site, "doctor", "--offline").returncode == 0


def test_a_package_can_not_take_the_place_of_a_shipped_provider(tmp_path: Path) -> None:
    site = install(tmp_path, ACME.replace('"acme"', '"reapi"'), "reapi")
    (listed,) = [p for p in json.loads(call(tmp_path, site, "providers", "--json").stdout) if p["provider"] == "reapi"]
    assert (listed["shipped"], listed["title"]) == (True, "reAPI")
