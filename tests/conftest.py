"""Fixtures that several folders of tests share."""

import sys
from pathlib import Path

from hypothesis import settings

# Test folders are no packages, so helpers are imported from their own folder.
sys.path.insert(0, str(Path(__file__).parent / "cluster" / "nvml"))

from fake_nvml import fake_nvml, nvml_library  # noqa: F401 - fixtures, found by name
from sampler_process import start_sampler  # noqa: F401 - the same

from postgres_server import postgres  # noqa: F401 - the same
from ray_cluster import ray_cluster  # noqa: F401 - the same

# The same draws in every run, so that a failure is everybody's. `pytest --hypothesis-profile=roaming` draws others, and
# prints the seed and the line that repeats a failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("roaming", derandomize=False, deadline=None, database=None, print_blob=True, max_examples=500)
settings.load_profile("repeatable")
