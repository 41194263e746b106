"""A user at a shell, with a state directory of their own and the real command line."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).parents[2] / ".src"
UNTIL_TOLD = "echo up; until [ -e {flag} ]; do sleep 0.05; done; echo end"


def until(true, within=60.0):
    """Wait for the thing itself; fail if it does not come."""
    end = time.monotonic() + within
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


class Site:
    """`folder` is the user's; `more` are variables of their environment."""

    def __init__(self, folder, more):
        self.folder = folder
        self.home = folder / "home"
        self.environment = {
            # Not the Ray that other tests have running.
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **more,
            "GPUSCHED_HOME": str(self.home),
            "PYTHONPATH": str(SOURCE),
            "NO_COLOR": "1",
            "RAY_memory_monitor_refresh_ms": "0",
            "USER": "ann",
        }

    def gpusched(self, *words, within=120, code=0, folder=None):
        done = subprocess.run(
            [sys.executable, "-m", "gpusched.scheduler.cli", *words],
            env=self.environment, cwd=folder or self.folder, timeout=within, text=True, capture_output=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def submit(self, *words, **more):
        # A small share of a CPU each: these machines have few.
        few = ("--cpus", "0.1") if "--" in words else ()
        return self.gpusched("submit", "-q", *few, *words, **more).strip()

    def mains(self, job):
        """The pids of the ranks' main processes."""
        return {rank["pid"] for rank in self.job(job)["attempts"][-1]["ranks"]}

    def job(self, ref):
        return json.loads(self.gpusched("describe", ref, "-o", "json"))["jobs"][0]

    def state(self, ref):
        return self.job(ref)["state"]

    def running(self, ref):
        return until(lambda: self.state(ref) == "RUNNING")

    def plane(self):
        return json.loads((self.home / "control-plane.json").read_text())

    def gateway(self):
        """The gateway's pid: the control plane's child that speaks to Ray."""
        children = Path(f"/proc/{self.plane()['pid']}/task").glob("*/children")
        pids = [int(pid) for file in children for pid in file.read_text().split()]
        return next((pid for pid in pids if b"ray.gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()), None)

    def marked(self, job):
        """Processes on this machine that carry the job's id in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    marks = (entry / "environ").read_bytes().split(b"\0")
                    if f"GPUSCHED_JOB_ID={job}".encode() in marks and f"GPUSCHED_HOME={self.home}".encode() in marks:
                        found.append(int(entry.name))
        return found

    def down(self):
        """Leave nothing of ours, whatever state a test left it in."""
        command = [sys.executable, "-m", "gpusched.scheduler.cli", "down", "--force"]
        subprocess.run(command, env=self.environment, timeout=60, check=False)
