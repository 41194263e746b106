"""What a sample of one node costs: `python tests/benchmarks/sampler_cost.py [GPUS] [PROCESSES]` (8 and 200).

Starts that many processes of jobs, builds the test NVML library, and samples. Figures are the median and the worst of
200 samples, in milliseconds of CPU of the sampling process, and as a share of a core at one sample in 5 seconds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cluster" / "nvml"))

from fake_nvml import FakeNvml, build_nvml

MEASURE = """
import importlib.util, json, sys, time
spec = importlib.util.spec_from_file_location("agent", sys.argv[1])
agent = importlib.util.module_from_spec(spec)
sys.modules["agent"] = agent
spec.loader.exec_module(agent)
pids = json.loads(sys.argv[2])
sampler = agent.NodeSampler("n1")
def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3
first, _, cpu_first = timed(lambda: sampler.sample(0.0))
time.sleep(11)  # until the processes are old enough not to be examined again
sampler.sample(0.0)
runs = [timed(lambda: sampler.sample(0.0)) for _ in range(200)]
shares = [timed(lambda: open(f"/proc/{pid}/smaps_rollup").read())[2] for pid in pids[:50]]
print(json.dumps({
    "gpus": len(first["gpus"]), "processes": sum(job["processes"] for job in first["jobs"]), "nvml": first["nvml"],
    "first": cpu_first, "cpu": [run[2] for run in runs], "wall": [run[1] for run in runs],
    "bytes": len(json.dumps(runs[-1][0])), "smaps": sum(shares) / max(1, len(shares)),
}))
"""


def main(gpus: int, processes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        nvml = FakeNvml(build_nvml(Path(folder)), Path(folder) / "nvml.txt")
        code = "import mmap, sys; m = mmap.mmap(-1, 64 << 20); m[:8 << 20] = bytes(8 << 20); sys.stdin.read()"
        jobs = [
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code],
                stdin=subprocess.PIPE,
                env={**os.environ, "GPUSCHED_JOB_ID": str(1 + number // 25), "GPUSCHED_ATTEMPT": "1"},
            )
            for number in range(processes)
        ]
        try:
            pids = [job.pid for job in jobs]
            nvml.show(
                [{"utilization": 90, "compute": [(pid, 1 << 30) for pid in pids[i::gpus][:4]]} for i in range(gpus)]
            )
            agent = HERE.parents[1] / "cluster" / "ray" / "agent.py"
            command = [sys.executable, "-c", MEASURE, str(agent), json.dumps(pids)]
            done = subprocess.run(
                command, env=os.environ | nvml.environment, capture_output=True, text=True, check=True
            )
        finally:
            for job in jobs:
                job.communicate(b"")
    found = json.loads(done.stdout)
    cpu, wall = sorted(found["cpu"]), sorted(found["wall"])
    lines = [
        f"{found['gpus']} GPUs, {found['processes']} processes of jobs, {found['bytes']} bytes of JSON",
        f"first sample   {found['first']:.1f} ms of CPU (everything is new)",
        f"then           {statistics.median(cpu):.2f} ms of CPU, worst {cpu[-1]:.2f}",
        f"               {statistics.median(wall):.2f} ms of time, on a machine with other work",
        f"every 5 s      {statistics.mean(cpu) / 5000:.4%} of a core",
        f"not done       {found['smaps']:.2f} ms a process for shares of shared memory (smaps_rollup)",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or (8, 200)))
