"""Fixtures that several folders of tests share."""

import sys
from pathlib import Path

# Test folders are no packages, so helpers are imported from their own folder.
sys.path.insert(0, str(Path(__file__).parent / "cluster" / "nvml"))

from fake_nvml import fake_nvml, nvml_library  # noqa: F401 - fixtures, found by name
from sampler_process import start_sampler  # noqa: F401 - the same
