"""Reading the manifests of a command line: every error of every file at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.text import visible
from ..environment import secrets
from ..exits import UsageError
from ..ledger.sql import Connection
from .errors import print_findings
from .options import MODELS
from .tables import note

if TYPE_CHECKING:
    from ..catalogue import Model
    from ..manifest import Finding, Manifest, Promotion


READ = "batchrunner.models.read"


def models_in_use() -> Mapping[str, Model]:
    """The shipped models, and those of `--models` where the command has it.

    Raises:
        ManifestError: with everything that is wrong with the folder's files.
    """
    from ..catalogue import models

    meta = click.get_current_context().meta
    folder = meta.get(MODELS)
    if folder is None:
        return models()
    if READ not in meta:  # once a command: a file may change meanwhile
        from ..manifest import read_models

        meta[READ] = read_models(folder)
    found: Mapping[str, Model] = meta[READ]
    return found


def gather(
    files: Sequence[str], *, profile: str | None, variables: Mapping[str, str]
) -> tuple[list[tuple[str, Manifest]], list[Finding]]:
    """Load every file, the valid ones with the name they were given, and everything that was found in any."""
    from ..api import load
    from ..manifest import ManifestError

    models = models_in_use()
    loaded: list[tuple[str, Manifest]] = []
    findings: list[Finding] = []
    for name in files:
        try:
            manifest = load(name, profile=profile, variables=variables, models=models)
        except ManifestError as error:
            findings += error.findings
        else:
            loaded.append((name, manifest))
            findings += manifest.warnings
    return loaded, findings


def load_promotion(
    connection: Connection, batch: str, profile: str, variables: Mapping[str, str], file: Path | None
) -> Promotion:
    """The profile that a batch is promoted to, from the manifest it was recorded from, or from `file`.

    Raises:
        Unknown: there is no such batch.
        UsageError: the manifest is gone, or is another batch's.
        ManifestError: see `manifest.load_profile`.
    """
    from ..ledger.naming import find_batch
    from ..manifest import load_profile

    recorded = Path(find_batch(connection, batch)["manifest"])
    path = file or recorded
    if not path.exists():
        hint = "" if file else f"; the batch {batch} was recorded from it. Name where it is now with --manifest"
        raise UsageError(f"there is no manifest {path}{hint}")
    found = load_profile(path, profile, variables=variables, secrets=secrets(variables), models=models_in_use())
    if found.batch != batch:
        raise UsageError(
            f"{path} is the manifest of {found.batch}, and not of {batch}; name the right one with --manifest"
        )
    return found


def load_all(
    files: Sequence[str], *, profile: str | None, variables: Mapping[str, str], as_json: bool = False
) -> list[Manifest]:
    """Load every file, print the warnings on stderr.

    Raises:
        ManifestError: with everything that is wrong in any of them.
    """
    from ..manifest import ManifestError

    loaded, findings = gather(files, profile=profile, variables=variables)
    if any(not f.warning for f in findings):
        raise ManifestError(tuple(findings))
    if not as_json:
        print_findings(tuple(findings), as_json=False)
    else:
        for finding in findings:
            note(visible(str(finding)))
    return [manifest for _, manifest in loaded]
