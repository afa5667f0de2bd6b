"""Reading the manifests of a command line: every error of every file at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..core.text import visible
from .errors import print_findings
from .tables import note

if TYPE_CHECKING:
    from ..manifest import Finding, Manifest


def gather(
    files: Sequence[str], *, profile: str | None, variables: Mapping[str, str]
) -> tuple[list[tuple[str, Manifest]], list[Finding]]:
    """Load every file, the valid ones with the name they were given, and everything that was found in any."""
    from ..api import load
    from ..manifest import ManifestError

    loaded: list[tuple[str, Manifest]] = []
    findings: list[Finding] = []
    for name in files:
        try:
            manifest = load(name, profile=profile, variables=variables)
        except ManifestError as error:
            findings += error.findings
        else:
            loaded.append((name, manifest))
            findings += manifest.warnings
    return loaded, findings


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
