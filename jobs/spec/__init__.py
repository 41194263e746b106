"""The job file: read, checked, resolved, and written back.

`read_job_file`, `read_jobs`, `read_script`, `spec_from_options` and `spec_from_document` give `JobSpec`, or raise
`SpecError` with every problem at once. Importing this package loads pydantic (about 0.2 s); the command line does so
only in the verbs that need it.
"""

from .environment import MASK
from .model import KIND_DEFAULTS, JobSpec
from .parts import Checkpoint, Placement
from .reading import read_job_file, read_jobs, read_script, spec_from_document, spec_from_options
from .resources import Accelerators, Resources
from .retries import Retry
from .schema import json_schema
from .writing import to_yaml

__all__ = [
    "KIND_DEFAULTS",
    "MASK",
    "Accelerators",
    "Checkpoint",
    "JobSpec",
    "Placement",
    "Resources",
    "Retry",
    "json_schema",
    "read_job_file",
    "read_jobs",
    "read_script",
    "spec_from_document",
    "spec_from_options",
    "to_yaml",
]
