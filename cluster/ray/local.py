"""A Ray of our own on this machine, and how to find one that runs already. Imports no Ray: runs its command.

The head runs under a supervisor (see `supervisor`), so that `stop` ends exactly what was started, to the last
descendant. `ray stop` would end every Ray process on the machine, whoever's it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...jobs.errors import GpuschedError
from . import supervisor

ADDRESS_FILE = "ray_current_cluster"
UP_WITHIN = 120.0
DOWN_WITHIN = 30.0
SAY_EVERY = 4.0
HOST = "127.0.0.2"
"""A loopback address survives a change of network. Ray replaces 127.0.0.1 by the machine's main one; this it keeps."""
OWN_SECRETS = ("GPUSCHED_DATABASE_URL", "GPUSCHED_SECRET_KEY", "GPUSCHED_SECRET_KEY_FILE", "GPUSCHED_TOKEN")
"""Variables that are for the control plane alone: Ray, and every job on it, would inherit them."""
SETTINGS = {
    # One machine: a raylet that is slow for a while is busy, not dead.
    # Ray runs workers at nice 15 for the sake of its own processes; jobs would inherit it and crawl.
    "RAY_worker_niceness": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "5",
    # Ray would kill Runners, which hold no memory, for what the users' processes hold.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True, slots=True)
class LocalRay:
    """A Ray head that `start` started.

    Attributes:
        address: what drivers connect to, `ip:port`.
        dashboard: URL of its dashboard; empty when it has none.
        gpus: GPUs that it offers; logical: they are numbers only, the machine has none.
        pids: the processes that belonged to it when it was up, its supervisor first, each with its start time in clock
            ticks since boot (guards against reuse of a pid).
        folder: its temporary files.
        token_file: holds the token of the cluster, which listens on all addresses: who has it may run code there.
    """

    address: str
    dashboard: str
    gpus: int
    logical: bool
    pids: dict[int, int]
    folder: str
    token_file: str

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs in its environment, beside the address."""
        return token_environment(Path(self.token_file))


def token_environment(file: Path) -> dict[str, str]:
    """Ray's settings for a cluster that wants this token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


def make_token(state: Path) -> Path:
    """The token of this control plane's own cluster: made once, for its owner's eyes only.

    Not Ray's default file: a token there would change how every other Ray of this user starts.
    """
    file = state / "ray-token"
    state.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)
    return file


def find() -> str | None:
    """Address of a Ray cluster that runs on this machine or that RAY_ADDRESS names; None when there is none.

    RAY_ADDRESS is believed; what the machine's own record names must answer.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named and named not in {"auto", "local"}:
        return named
    base = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - where Ray itself looks
    try:
        address = (base / "ray" / ADDRESS_FILE).read_text().strip()
    except OSError:
        return None
    return address if answers(address) else None


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False


def count_gpus() -> int:
    """GPUs of this machine that this process may use; 0 without a driver."""
    import pynvml  # noqa: PLC0415 - only who starts a cluster pays for it

    try:
        pynvml.nvmlInit()
        found = int(pynvml.nvmlDeviceGetCount())
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else min(found, len([part for part in visible.split(",") if part.strip()]))


def start(
    state: Path, *, gpus: int | None = None, dashboard: bool = True, say: Callable[[str], None] = lambda _line: None
) -> LocalRay:
    """Start a head on this machine; blocks until it answers (5 to 15 s). If one of ours runs, that one is returned.

    Args:
        state: directory that records what was started (`ray.json`), for `stop` in another process.
        gpus: GPUs to offer; None = those of the machine, or logical ones when it has none: 2, or one for every 4 cores
            where that is more (`say` is told so).
        dashboard: with Ray's dashboard.
        say: called with one line of progress at a time, at least every 5 seconds.

    Raises:
        GpuschedError: Ray did not come up; the message carries the end of its output.
    """
    if (already := running(state)) is not None:
        return already
    real = count_gpus()
    count = gpus if gpus is not None else real or max(2, (os.cpu_count() or 1) // 4)
    logical = not real and count > 0
    if logical:
        say(
            f"This machine has no GPU: Ray gets {count} logical GPUs, so that jobs queue and run as they would on GPUs."
        )
    folder = Path(tempfile.mkdtemp(prefix="gpusched-ray-", dir="/tmp"))
    port = free_port(8265) if dashboard else 0
    say("Starting Ray on this machine ...")
    token = make_token(state)
    keeper = _launch(folder, _command(folder, count, port), token_environment(token))
    try:
        address = _wait(folder, keeper, say)
    except GpuschedError as error:
        error.hint = f"all of its output is in {shutil.copy(folder / 'ray.log', state / 'ray-start.log')}"
        shutil.rmtree(folder, ignore_errors=True)
        raise
    pids = {pid: ticks for pid in [keeper, *supervisor.descendants(keeper)] if (ticks := started_at(pid))}
    local = LocalRay(address, f"http://127.0.0.1:{port}" if port else "", count, logical, pids, str(folder), str(token))
    temporary = state / "ray.json.tmp"
    temporary.write_text(json.dumps(asdict(local)))
    temporary.replace(state / "ray.json")
    say(f"Ray is up at {address}.")
    return local


def _command(folder: Path, gpus: int, dashboard_port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--node-ip-address={HOST}", "--port=0", f"--temp-dir={folder}", f"--num-gpus={gpus}"),
        *(f"--labels=gpusched.io/name={socket.gethostname()}", "--dashboard-agent-listen-port=0"),
        f"--include-dashboard={'true' if dashboard_port else 'false'}",
        *((f"--dashboard-port={dashboard_port}", "--dashboard-host=127.0.0.1") if dashboard_port else ()),
    ]


def _launch(folder: Path, command: list[str], environment: dict[str, str]) -> int:
    """Run the head under a supervisor that lives on when this process ends. Returns the supervisor's pid."""
    os.mkfifo(folder / "orders", 0o600)
    request: dict[str, Any] = {
        "argv": command,
        "env": {**os.environ, **SETTINGS, **environment},
        # What hides the GPUs from a job must not hide them from Ray; and the token is in its file alone.
        "unset": [
            *OWN_SECRETS,
            "RAY_AUTH_TOKEN",
            *([] if "CUDA_VISIBLE_DEVICES" in os.environ else ["CUDA_VISIBLE_DEVICES"]),
        ],
        "dir": str(folder),
        "cwd": str(folder),
        "log": str(folder / "ray.log"),
        "lifeline": str(folder / "orders"),
        "outlives": True,
        "grace": 3,
    }
    done = subprocess.run(  # noqa: S603 - our own supervisor
        [sys.executable, "-I", "-S", supervisor.__file__],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
        timeout=30,
        env={name: value for name, value in os.environ.items() if name not in OWN_SECRETS},
    )
    if done.returncode:
        raise GpuschedError(f"cannot start Ray: {done.stderr.decode(errors='replace').strip()}")
    pid: int = json.loads(done.stdout)["pid"]
    return pid


def _wait(folder: Path, keeper: int, say: Callable[[str], None]) -> str:
    """Wait until the head answers; returns its address."""
    began = said = time.monotonic()
    while time.monotonic() - began < UP_WITHIN:
        for file in (folder / ADDRESS_FILE, folder / "ray" / ADDRESS_FILE):
            with contextlib.suppress(OSError):
                address = file.read_text().strip()
                if answers(address) and "Ray runtime started" in (folder / "ray.log").read_text(errors="replace"):
                    return address
        if not supervisor.running(keeper):
            break
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            say(f"Waiting for Ray to come up ({said - began:.0f} s) ...")
        time.sleep(0.1)
    _order_stop(folder, keeper)
    tail = (folder / "ray.log").read_text(errors="replace").strip()[-2000:]
    raise GpuschedError(f"Ray did not come up on this machine. The end of its output:\n{tail}")


def free_port(wanted: int) -> int:
    """This port of the loopback interface if it is free, else another one."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise GpuschedError("this machine has no free port")


def started_at(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 = it is gone."""
    fields = supervisor.stat(pid)
    return int(fields[20]) if fields and fields[1] not in "ZX" else 0


def running(state: Path) -> LocalRay | None:
    """What `start` recorded there, if it still runs."""
    local = _recorded(state)
    if local is None:
        return None
    keeper, ticks = next(iter(local.pids.items()))
    return local if started_at(keeper) == ticks else None


def _recorded(state: Path) -> LocalRay | None:
    try:
        fields = json.loads((state / "ray.json").read_text())
    except FileNotFoundError:
        return None
    return LocalRay(**{**fields, "pids": {int(pid): ticks for pid, ticks in fields["pids"].items()}})


def stop(state: Path) -> int:
    """End exactly the processes that `start` recorded there, and those below them. Returns how many were ended."""
    local = _recorded(state)
    if local is None:
        return 0
    alive = [pid for pid, ticks in local.pids.items() if started_at(pid) == ticks]
    ended = {pid for own in alive for pid in (own, *supervisor.descendants(own))}
    keeper = next(iter(local.pids))
    if keeper in alive:
        _order_stop(Path(local.folder), keeper)
    for pid in ended:  # only if somebody killed the supervisor: it leaves none of them
        supervisor.send(pid, 9)
    (state / "ray.json").unlink(missing_ok=True)
    shutil.rmtree(local.folder, ignore_errors=True)
    return len(ended)


def _order_stop(folder: Path, keeper: int) -> None:
    """Have the supervisor end everything, and wait until it has."""
    with contextlib.suppress(OSError):
        orders = os.open(folder / "orders", os.O_WRONLY | os.O_NONBLOCK)
        os.write(orders, b'{"stop": 3}\n')
        os.close(orders)
    deadline = time.monotonic() + DOWN_WITHIN
    while supervisor.running(keeper) and time.monotonic() < deadline:
        time.sleep(0.05)
