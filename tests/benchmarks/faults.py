"""Every process killed and frozen in turn, links cut, disks full, clocks set: what was lost, and for how long it hurt.

    flock /tmp/ray.lock python tests/benchmarks/faults.py --rounds 3 --keep /tmp/faults.jsonl
    python tests/benchmarks/faults.py --table /tmp/faults.jsonl

Needs root (network namespaces, a tmpfs), gcc, Ray and the PostgreSQL of the tests. One trial: a gang of two and two
singles run, three jobs wait, the fault happens, and all of them have to end well. Lost is: a job without its one final
state or with a wrong count, an older attempt that wrote after a newer one, a process that outlives its job. Normal
again is when a control plane answers, leads and has a Ray, every node is up that can be, and no job is in between.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_bed import APART, GO, HEAD, KILL, LINK, SECOND, STOP, Bed, ip, tell, until

from gpusched.jobs.errors import GpuschedError

FROZEN = 9.0
"""Seconds of a SIGSTOP: longer than a lease."""
CUT = 20.0
"""Seconds of a partition: longer than Ray waits."""

Heal = Callable[[], None]


def nothing() -> None:
    """Nothing is to be healed."""


def process(find: Callable[[Bed, list[int]], int], number: int, after: Callable[[Bed], None] | None = None) -> Any:
    """The fault that a process is killed, or frozen and woken."""

    def happen(bed: Bed, jobs: list[int]) -> Heal:
        pid = find(bed, jobs)
        tell(pid, number)
        if number == STOP:

            def wake() -> None:
                time.sleep(FROZEN)
                with contextlib.suppress(ProcessLookupError):
                    tell(pid, GO)

            return wake
        return (lambda: after(bed)) if after is not None else nothing

    return happen


def plane(bed: Bed, _jobs: list[int]) -> int:
    """The control plane that leads."""
    return int(bed.sites[bed.leader()].plane()["pid"])


def gateway(bed: Bed, _jobs: list[int]) -> int:
    """Its gateway."""
    return int(until(bed.sites[bed.leader()].gateway))


def raylet(bed: Bed, _jobs: list[int]) -> int:
    """The second node's raylet."""
    return bed.machines.raylet()


def head(bed: Bed, _jobs: list[int]) -> int:
    """The head's GCS."""
    return bed.machines.gcs()


def runner(bed: Bed, jobs: list[int]) -> int:
    """One of the gang's Runners."""
    return bed.runner(jobs[0])


def supervisor(bed: Bed, jobs: list[int]) -> int:
    """The supervisor of the gang's second rank."""
    return int(bed.ranks(jobs[0])[1]["supervisor"])


def rank(bed: Bed, jobs: list[int]) -> int:
    """The main process of the gang's second rank."""
    return int(bed.ranks(jobs[0])[1]["pid"])


def raylet_again(bed: Bed) -> None:
    """The machine comes back."""
    time.sleep(3)
    bed.machines.cluster._nodes.pop(SECOND)
    bed.machines.add(SECOND)


def head_again(bed: Bed) -> None:
    """The head is started again, on its storage."""
    time.sleep(3)
    bed.machines.restart_gcs()


def partition(bed: Bed, _jobs: list[int]) -> Heal:
    """The third machine's link is cut."""
    ip("link", "set", LINK, "down")

    def heal() -> None:
        time.sleep(CUT)
        ip("link", "set", LINK, "up")
        # A raylet that was given up ends itself when it hears of it; a site's service manager starts it again.
        with contextlib.suppress(subprocess.TimeoutExpired):
            bed.machines.apart.wait(30)
            bed.machines.add_apart()

    return heal


def postgres(bed: Bed, _jobs: list[int]) -> Heal:
    """PostgreSQL is switched off and on."""
    bed.postgres.halt()

    def heal() -> None:
        time.sleep(4)
        bed.postgres.start()

    return heal


def clock(by: int) -> Any:
    """PostgreSQL's machine has its clock set, by which both control planes go."""

    def happen(bed: Bed, _jobs: list[int]) -> Heal:
        bed.offset.write_text(str(by))
        return nothing

    return happen


def head_without_storage(bed: Bed, _jobs: list[int]) -> Heal:
    """Ray's head and with it the whole cluster begins anew, and remembers nothing."""
    bed.machines.stop()
    shutil.rmtree(bed.machines.folder / "gcs")
    return bed.machines.start


FAULTS: dict[str, Any] = {
    "control plane: kill -9": process(plane, KILL),
    "control plane: SIGSTOP": process(plane, STOP),
    "gateway: kill -9": process(gateway, KILL),
    "gateway: SIGSTOP": process(gateway, STOP),
    "raylet: kill -9": process(raylet, KILL, raylet_again),
    "raylet: SIGSTOP": process(raylet, STOP),
    "head (GCS, with storage): kill -9": process(head, KILL, head_again),
    "head (GCS, with storage): SIGSTOP": process(head, STOP),
    "Runner: kill -9": process(runner, KILL),
    "Runner: SIGSTOP": process(runner, STOP),
    "supervisor: kill -9": process(supervisor, KILL),
    "supervisor: SIGSTOP": process(supervisor, STOP),
    "rank: kill -9": process(rank, KILL),
    "rank: SIGSTOP": process(rank, STOP),
    "partition of a machine, healed": partition,
    "PostgreSQL restarted": postgres,
    "clock of PostgreSQL's machine: +2 h": clock(7200),
    "clock of PostgreSQL's machine: -2 h": clock(0),
    "head without storage begun anew": head_without_storage,
}


def trial(bed: Bed, name: str) -> dict[str, Any]:
    """One fault on running jobs."""
    happen = FAULTS[name]
    shutil.rmtree(bed.folder / "work", ignore_errors=True)
    jobs = bed.submit()
    until(lambda: all(bed.job(number)["state"] == "RUNNING" for number in jobs[:3]), what="the jobs' start")
    until(lambda: len(list((bed.folder / "work").glob("state-*"))) >= 4, what="the ranks' first steps")
    before = {number: bed.job(number)["attempts"][-1]["ranks"] for number in jobs[:3]}
    began, leader = time.monotonic(), bed.leader()
    with bed.watched() as wrong:
        heal = happen(bed, jobs)
        healed = _in_background(heal)
        normal = until(lambda: _normal(bed, jobs, healed), within=120, what="normal life") - began
        until(lambda: all(bed.job(number)["state"] in DONE for number in jobs), within=120, what="the jobs' end")
    lost = bed.check(jobs) + wrong
    kept = sum(bed.job(number)["attempt"] == 1 and bed.ranks(number) == before[number] for number in before)
    return {
        "fault": name,
        "lost": lost,
        "normal": round(normal, 1),
        "kept": kept,
        "attempts": sum(bed.job(number)["attempt"] for number in jobs),
        "overlap": round(bed.overlap(jobs), 1),
        "took_over": bed.leader() != leader,
    }


DONE = {"SUCCEEDED", "FAILED", "CANCELLED", "TIMEOUT", "LOST"}


def _in_background(work: Heal) -> Callable[[], bool]:
    import threading  # noqa: PLC0415 - here alone

    thread = threading.Thread(target=work)
    thread.start()
    return lambda: not thread.is_alive()


def _normal(bed: Bed, jobs: list[int], healed: Callable[[], bool]) -> float:
    """When all is well: a leader with a Ray, all nodes up, no job half way. 0 = it is not. Healing is a part of it."""
    try:
        leader = bed.leader()
        if not healed() or not leader or bed.status(leader)["ray"]["state"] != "connected":
            return 0.0
        if bed.up() != {HEAD, SECOND, APART}:
            return 0.0
        if any(bed.job(number)["state"] not in {*DONE, "RUNNING"} for number in jobs[:3]):
            return 0.0
    except (GpuschedError, AssertionError, LookupError, subprocess.TimeoutExpired):
        return 0.0
    return time.monotonic()


def full_disk(bed: Bed) -> dict[str, Any]:
    """A control plane on SQLite, on a small disk that runs full and is freed; its clock is set meanwhile, too."""
    shutil.rmtree(bed.folder / "work", ignore_errors=True)
    folder = bed.folder / f"disk{time.monotonic_ns()}"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    from site_kit import Site  # noqa: PLC0415 - fault_bed put it on the path

    site = Site(folder, {"LD_PRELOAD": str(bed.clock), "GPUSCHED_TEST_CLOCK": str(folder / "offset")})
    try:
        site.gpusched("up", "--ray-address", bed.machines.address, within=120)
        jobs = bed.submit(site)
        until(lambda: all(bed.job(number, site)["state"] == "RUNNING" for number in jobs[:3]), what="the jobs' start")
        for by in (7200, -7200, 0):
            (folder / "offset").write_text(str(by))
            time.sleep(6)  # it looks every five
            assert all(bed.job(number, site)["state"] in {"RUNNING", "SUCCEEDED"} for number in jobs[:3])
        jobs.append(bed._submit(site, "single-9", 1, 1, 12))
        until(lambda: bed.job(jobs[-1], site)["state"] == "RUNNING", what="its start")
        with contextlib.suppress(OSError), (folder / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(1 << 16))
                ballast.flush()
        refused = subprocess.run(
            [sys.executable, "-m", "gpusched.scheduler.cli", "submit", "-q", "--cpus", "0.1", "--", "true"],
            env=site.environment, cwd=bed.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = (
            "" if refused.returncode and "disk" in refused.stderr else f"a full disk is answered by {refused.stderr!r}"
        )
        time.sleep(13)  # jobs end meanwhile
        (folder / "ballast").unlink()
        freed = time.monotonic()
        until(lambda: site.submit("--", "true"), what="the next job")
        normal = time.monotonic() - freed
        until(lambda: all(bed.job(number, site)["state"] in DONE for number in jobs), what="the jobs' end")
        lost = [*bed.check(jobs, site), *([said] if said else [])]
        attempts = sum(bed.job(number, site)["attempt"] for number in jobs)
        return {"fault": DISK, "lost": lost, "normal": round(normal, 1), "kept": 3, "attempts": attempts,
                "overlap": round(bed.overlap(jobs), 1), "took_over": False}  # fmt: skip
    finally:
        site.down()
        subprocess.run(["umount", "-l", str(folder)], check=False)


DISK = "full disk under SQLite, after clock +2 h, -2 h"


def table(rows: list[dict[str, Any]]) -> str:
    """The trials, a line a fault."""
    lines = [
        "| fault | tried | lost | normal again after (median, worst) | running attempts kept of 3 (least) |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for name in dict.fromkeys(row["fault"] for row in rows):
        tries = [row for row in rows if row["fault"] == name]
        lost = [what for row in tries for what in row["lost"]]
        times = [row["normal"] for row in tries]
        lines.append(
            f"| {name} | {len(tries)} | {'; '.join(lost) or 'nothing'} |"
            f" {statistics.median(times):.1f} s, {max(times):.1f} s | {min(row['kept'] for row in tries)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="words of the faults to try, with commas between them")
    parser.add_argument("--keep", type=Path, help="add each trial to this file")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and do nothing else")
    asked = parser.parse_args()
    if asked.table:
        print(table([json.loads(line) for line in asked.table.read_text().splitlines()]))
        return
    words = [word.strip() for word in asked.only.split(",") if word.strip()]
    names = [name for name in [*FAULTS, DISK] if not words or any(word in name for word in words)]
    rows = []
    bed = Bed()
    try:
        bed.restore()
        for name in names * asked.rounds:
            begun = time.monotonic()
            row = full_disk(bed) if name == DISK else trial(bed, name)
            rows.append(row)
            print(f"{name}: {row} ({time.monotonic() - begun:.0f} s)", flush=True)
            if asked.keep:
                with asked.keep.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            bed.restore()
    finally:
        bed.close()
    print(table(rows))


if __name__ == "__main__":
    main()
