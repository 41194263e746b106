"""A sampler in a process of its own, as on a node: agent.py alone in an empty folder, asked through a pipe."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

AGENT = Path(__file__).resolve().parents[3] / "cluster" / "ray" / "agent.py"
LOOP = """
import json, operator, sys
import agent
sampler = agent.NodeSampler(**json.loads(sys.argv[1]))
for line in sys.stdin:
    call, arguments = json.loads(line)
    print(json.dumps(operator.attrgetter(call)(sampler)(*arguments)), flush=True)
"""


class SamplerProcess:
    """Calls cross the pipe as JSON, which proves that samples are JSON."""

    def __init__(self, folder: Path, environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
        shutil.copy(AGENT, folder / "agent.py")
        # -I: no PYTHONPATH, no current folder; only what is installed and the agent itself.
        code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{LOOP}"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", code, json.dumps({"node": "n1", **options})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"} | dict(environment),
        )
        self.pid = self._process.pid

    def _call(self, name: str, *arguments: object) -> Any:
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the sampler died"
        return json.loads(answer)

    def gpus(self, clock: float) -> tuple[list[dict[str, Any]], str | None]:
        """The GPUs alone, at a time of the test's choice."""
        return self._call("_gpus.read", clock)

    def sample(self, now: float = 0.0) -> dict[str, Any]:
        return self._call("sample", now)

    def clock(self) -> float:
        """When the last sample was taken, in seconds on the sampler's own clock."""
        return self._call("_processes.__getattribute__", "_last")

    def watch(self, pid: int, job: int, attempt: int) -> None:
        self._call("watch", pid, job, attempt)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start_sampler(tmp_path: Path) -> Iterator[Callable[..., SamplerProcess]]:
    """Start samplers; `environment` is added to this process's own.

    They see only processes that carry TEST_RUN=<tmp_path>, so that real jobs on this machine do not matter.
    """
    started: list[SamplerProcess] = []

    def start(environment: Mapping[str, str] | None = None, **options: Any) -> SamplerProcess:
        only = {"TEST_RUN": str(tmp_path), **options.pop("only", {})}
        started.append(SamplerProcess(tmp_path, environment or {}, {"only": only, **options}))
        return started[-1]

    yield start
    for sampler in started:
        sampler.close()
