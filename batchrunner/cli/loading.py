"""Reading the manifests of a command line: every error of every file at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..manifest import Finding, Manifest, ManifestError, load
from .errors import print_findings


def load_all(
    manifests: Sequence[str], *, profile: str | None, variables: Mapping[str, str], as_json: bool = False
) -> list[Manifest]:
    """Load every manifest; warnings go to stderr.

    Raises:
        ManifestError: with the findings of all files.
    """
    loaded: list[Manifest] = []
    findings: list[Finding] = []
    broken = False
    for name in manifests:
        try:
            manifest = load(name, profile=profile, variables=variables)
        except ManifestError as error:
            broken = True
            findings += error.findings
        else:
            loaded.append(manifest)
            findings += manifest.warnings
    if broken:
        raise ManifestError(tuple(findings))
    if findings and not as_json:
        print_findings(tuple(findings), as_json=False)
    return loaded
