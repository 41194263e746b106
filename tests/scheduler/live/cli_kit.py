"""The command line as a process of its own, in a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[3] / ".src"


class Cli:
    """Runs `gpusched` with nothing of the caller's environment but what it needs to start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "state"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCE),
            "HOME": str(folder),
            "USER": "ann",
            "LOGNAME": "ann",
            "LANG": "C.UTF-8",
            "GPUSCHED_HOME": str(self.home),
            "GPUSCHED_RAY_ADDRESS": "none",
        }

    def at(self, plane: Any) -> Cli:
        """The same, for a control plane."""
        self.environment |= {"GPUSCHED_ADDRESS": plane.server.url, "GPUSCHED_TOKEN": plane.server.token}
        return self

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "gpusched.scheduler.cli", *words]

    def __call__(
        self, *words: str, code: int | None = 0, stdin: str = "", timeout: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it and check its exit code (None = any). No error is ever a traceback."""
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
            env={**self.environment, **environment},
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start it and go on."""
        return subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**self.environment, **environment},
        )


@pytest.fixture
def cli(tmp_path) -> Cli:
    folder = tmp_path / "user"
    folder.mkdir()
    return Cli(folder)
