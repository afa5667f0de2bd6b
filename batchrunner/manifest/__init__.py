"""Text to job specs: positions and bounds, schema errors, expansion. Reads files, nothing else.

text -> located tree (`reading`, `events`, `rows_*`) -> checked (`schema_errors`, `requests`, `checks`)
-> job specs (`shots`, `matrix`, `expand`).
"""

from .load import load
from .model import Finding, JobSource, Manifest, ManifestError
from .models import read_models
from .notices import load_notices

__all__ = ["Finding", "JobSource", "Manifest", "ManifestError", "load", "load_notices", "read_models"]
