"""`validate`: schema and expansion only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..core.text import visible
from ..exits import EXIT_OK, EXIT_USAGE
from .errors import print_findings
from .loading import gather
from .options import any_db_option, json_option, manifest_options
from .tables import counted, money, say

if TYPE_CHECKING:
    from ..manifest import Manifest

MODELS_SHOWN = 3
"""Models that the line of a manifest names."""


@click.command(
    epilog="""\b
Examples:
  batchrunner validate nightly.yaml
  batchrunner validate manifests/*.yaml
  batchrunner validate nightly.yaml --profile final --var season=summer
  batchrunner validate nightly.yaml --json | jq -r '.[].message'

\b
Exit codes: 0 valid (warnings may be printed), 2 not valid.
"""
)
@manifest_options
@json_option
@any_db_option
def validate(manifests: tuple[str, ...], variables: dict[str, str], profile: str | None, as_json: bool) -> int:
    """Check a manifest; nothing is recorded or sent.

    Every error of every manifest is reported at once, as `file:line:column: error: what is wrong and what is allowed`,
    on stderr. With --json: an array of {file, line, column, path, message, severity} on stdout, empty when all is well.
    """
    loaded, findings = gather(manifests, profile=profile, variables=variables)
    invalid = any(not f.warning for f in findings)
    if as_json or findings:
        print_findings(tuple(findings), as_json=as_json)
    if not as_json:
        for name, manifest in loaded:
            say(f"{visible(name)}: {_line(manifest)}")
    return EXIT_USAGE if invalid else EXIT_OK


def _line(manifest: Manifest) -> str:
    """What a valid manifest comes to."""
    sums = manifest.sums
    models = sums.models
    names = [name if len(models) == 1 else f"{name} x {n}" for name, n in models.most_common(MODELS_SHOWN)]
    if len(models) > MODELS_SHOWN:
        names.append(f"{len(models) - MODELS_SHOWN} more models")
    price = f"estimated {money(sums.credits)}"
    if sums.unpriced:
        price += f" without {counted(sums.unpriced, 'job')} of unknown price"
    jobs = counted(sums.jobs, "job")
    return ", ".join([f"valid, batch {manifest.batch}, {jobs}", *names, price])
