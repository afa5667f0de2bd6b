"""A package that brings a provider, as `pip` would leave it: written into a folder that PYTHONPATH then names."""

from __future__ import annotations

import json
from pathlib import Path

from batchrunner.catalogue import schema_folder

ACME = '''
"""A service that speaks as reAPI does, under a name of its own."""

from batchrunner.providers.base import Capabilities, ProviderKind
from batchrunner.providers.reapi import ReApi, ReApiSettings


class Acme(ReApi):
    name = "acme"


KIND = ProviderKind(
    name="acme",
    title="Acme",
    capabilities=Capabilities(cancel=True, output_hours=24.0),
    keys=("ACME_KEY",),
    base_url="https://acme.example",
    base_variable="ACME_BASE_URL",
    source="https://acme.example/docs",
    open=lambda access, clock, models: Acme(ReApiSettings(access.base_url, access.key), clock, models),
)
'''


def install(folder: Path, code: str = ACME, name: str = "acme") -> Path:
    """Write the package; returns what belongs on the path."""
    site = folder / "site"
    (site / f"batchrunner_{name}").mkdir(parents=True)
    (site / f"batchrunner_{name}" / "__init__.py").write_text(code, "utf-8")
    about = site / f"batchrunner_{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: batchrunner-{name}\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text(f"[batchrunner.providers]\n{name} = batchrunner_{name}:KIND\n", "utf-8")
    return site


def write_model(folder: Path, provider: str = "acme", name: str = "acme-1", like: str = "z-image") -> Path:
    """Describe a model of the provider's in a folder for `--models`."""
    folder.mkdir(exist_ok=True)
    schema = json.loads((schema_folder() / "models" / f"{like}.schema.json").read_text("utf-8"))
    schema["$id"] = f"{name}.schema.json"
    schema["properties"]["model"]["const"] = name
    schema["examples"] = [{"model": name, "prompt": "a dog"}]
    schema["x-batchrunner"]["provider"] = provider
    (folder / f"{name.replace('/', '__')}.schema.json").write_text(json.dumps(schema, indent=1), "utf-8")
    return folder
