"""Builds `libnvidia-ml.so.1` from `nvml.c` and turns its knobs; `fake_nvml` is the fixture.

The library is found by name when a process starts, so what shall see it is started with `fake_nvml.environment`:

    fake_nvml.show([{"utilization": 87, "compute": [(4242, 1 << 30)]}, {"fail": {"power": 3}}])
    subprocess.run([...], env=os.environ | fake_nvml.environment)
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

NVML = "libnvidia-ml.so.1"


def build_nvml(folder: Path) -> Path:
    """Compile the library into `folder`; skips the test, and says so, where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc, clang): the test NVML library cannot be built")
    library = folder / NVML
    source = Path(__file__).with_name("nvml.c")
    command = [compiler, "-std=gnu11", "-Wall", "-O1", "-shared", "-fPIC", "-pthread", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


class FakeNvml:
    """The knobs of the test library. Processes that run already see a change at their next call."""

    def __init__(self, library: Path, state: Path) -> None:
        self.library = library
        self.state = state
        self.environment = {
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(library.parent), os.environ.get("LD_LIBRARY_PATH")])),
            "GPUSCHED_TEST_NVML": str(state),
        }

    def show(self, gpus: int | Sequence[Mapping[str, Any]], **host: float | str) -> None:
        """Show these GPUs (a number: idle ones). Keys as in `nvml.c`; processes: (pid, bytes) each; Xids: numbers."""
        facts = [{}] * gpus if isinstance(gpus, int) else gpus
        lines = [f"host gpus {len(facts)}", *(f"host {key} {value}" for key, value in host.items())]
        for index, gpu in enumerate(facts):
            for key, value in gpu.items():
                if key in ("compute", "graphics"):
                    lines += [f"{index} {key} {pid} {size}" for pid, size in value]
                elif key == "xid":
                    lines += [f"{index} xid {number}" for number in value]
                elif key == "fail":
                    lines += [f"{index} fail {what} {code}" for what, code in value.items()]
                else:
                    lines.append(f"{index} {key} {value}")
        # By rename: a reader sees the old state or the new one, never half a file.
        new = self.state.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.state)

    def unload(self) -> None:
        """The driver is gone, as while it is being replaced."""
        self.state.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built once a session."""
    return build_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake_nvml(nvml_library: Path, tmp_path: Path) -> FakeNvml:
    """Two idle GPUs until the test shows others."""
    nvml = FakeNvml(nvml_library, tmp_path / "nvml.txt")
    nvml.show(2)
    return nvml
