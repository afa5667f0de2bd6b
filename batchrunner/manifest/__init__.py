"""Text to job specs: positions and bounds, schema errors, expansion. Reads files, nothing else.

text -> located tree (`reading`, `events`, `rows_*`) -> checked (`schema_errors`, `requests`, `checks`)
-> job specs (`shots`, `matrix`, `expand`).
"""

from .load import load, load_profile
from .model import Finding, JobSource, Manifest, ManifestError
from .models import read_models
from .notices import load_notices
from .promotion import NotPromotable, Promotion
from .requests import problems_of

__all__ = [
    "Finding",
    "JobSource",
    "Manifest",
    "ManifestError",
    "NotPromotable",
    "Promotion",
    "load",
    "load_notices",
    "load_profile",
    "problems_of",
    "read_models",
]
