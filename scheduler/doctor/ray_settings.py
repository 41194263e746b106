"""Ray: its version, the settings that its processes here run with, and what earlier ones left behind."""

from __future__ import annotations

import ipaddress
import os
import socket
from importlib import metadata
from pathlib import Path

import psutil

from .check import Check, fail, ok, skip, warn
from .probe import Port, Probe, RayProcess

OLDEST, TOO_NEW = (2, 60), (2, 61)
LATE_CRASH, LATE_PARTITION, HASTY = 20.0, 30.0, 2.0
"""Seconds after which the loss of a node is noticed: too late for a crash or a cut cable, and too soon."""
TUNED = "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=1000 RAY_health_check_failure_threshold=3"
SOCKET_PATH = 107
SESSION = "session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store_000"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def version(probe: Probe) -> Check:
    """Ray's release here, without importing it, and that of the processes that run."""
    want = f"{'.'.join(map(str, OLDEST))}.x"
    install = f"pip install 'ray[default,train]>={'.'.join(map(str, OLDEST))},<{'.'.join(map(str, TOO_NEW))}'"
    try:
        here = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return fail("ray-version", "Ray is not installed here", why="no job can be started", fix=install)
    others = sorted({ray.version for ray in probe.ray_processes if ray.version} - {here})
    if others:
        return fail(
            "ray-version",
            f"Ray {here} here, and Ray {', '.join(others)} runs",
            why="Ray refuses drivers of another version than the cluster's",
            fix="install the same version here and on every node, and restart the cluster",
        )
    if _numbers(here) < OLDEST:
        return fail("ray-version", f"Ray {here}", why=f"gpusched needs label selectors of Ray {want}", fix=install)
    if _numbers(here) >= TOO_NEW:
        return warn(
            "ray-version",
            f"Ray {here}",
            why=f"only {want} is tried: beta and private interfaces that gpusched uses may have changed",
            fix=install,
        )
    return ok("ray-version", f"Ray {here}")


def cleanup(probe: Probe) -> Check:
    """Settings of running raylets that leave processes of ended jobs alive, or end the wrong ones."""
    seen = _readable(probe, "raylet")
    if not seen:
        return _nobody(probe, "ray-cleanup", "raylet")
    leaks, kills, old = [], [], []
    for raylet in seen:
        groups = raylet.enabled("process_group_cleanup_enabled", default=True)
        children = raylet.enabled("kill_child_processes_on_worker_exit", default=True)
        subreaper = raylet.enabled("kill_child_processes_on_worker_exit_with_raylet_subreaper", default=False)
        if subreaper and not groups:
            kills.append(str(raylet.pid))
        elif not groups or not children:
            leaks.append(f"{raylet.pid} ({'process groups' if not groups else 'children'} are left)")
        elif subreaper:
            old.append(str(raylet.pid))
    if kills:
        return fail(
            "ray-cleanup",
            f"raylet {', '.join(kills)} ends every process below it that it does not know",
            why="the supervisor of each rank is such a process: running jobs are killed",
            fix="start Ray without RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper",
        )
    if leaks:
        return warn(
            "ray-cleanup",
            f"raylet {', '.join(leaks)} when a worker ends",
            why="gpusched's own supervisor ends jobs to the last process, but other Ray actors leak theirs onto GPUs",
            fix="start Ray without RAY_kill_child_processes_on_worker_exit and RAY_process_group_cleanup_enabled",
        )
    if old:
        return warn(
            "ray-cleanup",
            f"raylet {', '.join(old)} is told to be a subreaper, which it ignores",
            why="the setting is deprecated and does nothing beside process group clean-up",
            fix="start Ray without RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper",
        )
    return ok("ray-cleanup", f"{len(seen)} raylets end what their workers leave")


def health(probe: Probe) -> Check:
    """How late the head notices that a node is dead."""
    seen = _readable(probe, "gcs_server")
    if not seen:
        return _nobody(probe, "ray-health", "gcs_server")
    crash, partition = _notice(seen[0])
    found = f"a crashed node is noticed after about {crash:.0f} s, one cut off after {partition:.0f} s"
    if crash < HASTY:
        return warn(
            "ray-health",
            found,
            why="a healthy node that is busy for a moment is declared dead, with all its jobs",
            fix=f"start Ray's head with {TUNED}",
        )
    if crash > LATE_CRASH or partition > LATE_PARTITION:
        return warn(
            "ray-health",
            found,
            why="so long its jobs seem to run, and their gangs hold the GPUs of the other nodes for nothing",
            fix=f"start Ray's head with {TUNED}",
        )
    return ok("ray-health", found)


def _notice(gcs: RayProcess) -> tuple[float, float]:
    """Seconds until a crash and a partition are noticed: period x threshold, (period + time-out) x threshold."""

    def number(name: str, default: int) -> float:
        value = gcs.setting(name, str(default))
        return float(value) if value.replace(".", "", 1).isdigit() else default

    period, timeout = number("health_check_period_ms", 3000) / 1000, number("health_check_timeout_ms", 10_000) / 1000
    threshold = number("health_check_failure_threshold", 5)
    return period * threshold, (period + timeout) * threshold


def memory_monitor(probe: Probe) -> Check:
    """Several raylets on one machine each take all of its use for their own."""
    seen = _readable(probe, "raylet")
    if not seen:
        return _nobody(probe, "ray-memory-monitor", "raylet")
    watching = [ray for ray in seen if ray.setting("memory_monitor_refresh_ms", "250") != "0"]
    if len(seen) < 2 or not watching:  # noqa: PLR2004 - several
        return ok("ray-memory-monitor", f"{len(seen)} raylets on this machine")
    return warn(
        "ray-memory-monitor",
        f"{len(watching)} raylets on this machine watch its memory",
        why="when it runs full each of them kills workers, whosever they are",
        fix="start all but one with RAY_memory_monitor_refresh_ms=0",
    )


def access(probe: Probe) -> Check:
    """Whether anybody on the network may run code on the cluster."""
    seen = _readable(probe, "gcs_server")
    if not seen:
        return _nobody(probe, "ray-access", "gcs_server")
    for gcs in seen:
        token = (gcs.environment or {}).get("RAY_AUTH_MODE", "").lower() == "token"
        tls = (gcs.environment or {}).get("RAY_USE_TLS", "") == "1"
        wide = sorted(address for address in gcs.listens or () if not _loopback(address))
        if wide and not token and not tls:
            return warn(
                "ray-access",
                f"gcs_server {gcs.pid} listens on {', '.join(wide)} and asks for no token",
                why="whoever reaches this port runs code on every node, past the queue and its limits",
                fix="start all of Ray with RAY_AUTH_MODE=token (`ray get-auth-token --generate`), or firewall it",
            )
    return ok("ray-access", "closed to other machines, or behind a token or TLS")


def _loopback(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    # An IPv4 peer of an IPv6 socket: ::ffff:127.0.0.1.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def address(probe: Probe) -> Check:
    """Whether the cluster's address answers: Ray itself would wait for minutes."""
    if not probe.ray_address:
        return skip("ray-address", "no address configured: a local Ray is found or started")
    host, _, port = probe.ray_address.removeprefix("ray://").rpartition(":")
    fix = "start Ray's head there, or give --ray-address HOST:PORT as `ray start --head` printed it"
    if not host or not port.isdigit():
        return fail(
            "ray-address", f"{probe.ray_address!r} is no HOST:PORT", why="the cluster cannot be joined", fix=fix
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
    except (OSError, OverflowError) as error:
        return fail("ray-address", f"{probe.ray_address}: {error}", why="jobs are queued and none starts", fix=fix)
    return ok("ray-address", f"{probe.ray_address} answers")


def ports(probe: Probe) -> list[Check]:
    """Each port that we or Ray want is free, or held by who should hold it."""
    return [_port(port) for port in probe.ports]


def _port(port: Port) -> Check:
    name = f"port-{port.number}"
    what = f"{port.use}, {port.host}:{port.number}"
    with socket.socket(socket.AF_INET6 if ":" in port.host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((port.host, port.number))
        except PermissionError:
            return fail(name, f"{what}: not allowed", why=f"{port.use} cannot start", fix="choose a port above 1023")
        except OSError as error:
            who = _holder(port.number)
            if who is not None and any(word in who for word in port.holders):
                return ok(name, f"{what}: held by {who}")
            return warn(
                name,
                f"{what}: {f'taken by {who}' if who else error.strerror}",
                why=f"{port.use} cannot start on it",
                fix="end that program, or choose another port",
            )
    return ok(name, f"{what}: free")


def _holder(number: int) -> str | None:
    """`name (pid N)` of who listens there; None when it cannot be seen, as another user's."""
    for connection in psutil.net_connections("tcp"):
        if not connection.laddr or not connection.pid or connection.status != psutil.CONN_LISTEN:
            continue
        if connection.laddr.port == number:
            try:
                process = psutil.Process(connection.pid)
                words = [process.name(), *process.cmdline()[:3]]
            except psutil.Error:
                return None
            title = " ".join(Path(word).name for word in words if not word.startswith("-"))
            return f"{title[:60]} (pid {connection.pid})"
    return None


def leftovers(probe: Probe) -> list[Check]:
    """Ray's temp directory: ours to write to, short enough for sockets, and not naming a cluster that is gone."""
    folder = probe.ray_folder
    longest = len(os.fsencode(folder.absolute() / SESSION))
    if longest > SOCKET_PATH:
        return [
            fail(
                "ray-temp",
                f"{folder} is too long: its sockets would have {longest} bytes, of {SOCKET_PATH} that Linux allows",
                why="no raylet starts",
                fix="set RAY_TMPDIR to a short path on a local disk",
            )
        ]
    if not folder.exists():
        return [ok("ray-temp", f"{folder} is not there yet and will be made")]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [
            fail(
                "ray-temp",
                f"{folder} belongs to uid {folder.stat().st_uid} and is not ours to write to",
                why="no local Ray can be started: it keeps its sessions there",
                fix="set RAY_TMPDIR to a folder of your own",
            )
        ]
    return [_dead_cluster(folder)]


def _dead_cluster(folder: Path) -> Check:
    try:
        named = (folder / "ray_current_cluster").read_text().strip()
    except FileNotFoundError:
        return ok("ray-temp", f"{folder} names no running cluster")
    host, _, port = named.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except (OSError, ValueError, OverflowError):
        return warn(
            "ray-temp",
            f"{folder / 'ray_current_cluster'} names a cluster at {named or 'no address'}, which does not answer",
            why="programs that look for a running cluster wait for this one, and a new head may be refused",
            fix=f"rm {folder / 'ray_current_cluster'}",
        )
    return ok("ray-temp", f"{folder} names the cluster at {named}, which answers")


def _readable(probe: Probe, kind: str) -> list[RayProcess]:
    return [ray for ray in probe.ray_processes if ray.kind == kind and ray.environment is not None]


def _nobody(probe: Probe, name: str, kind: str) -> Check:
    if any(ray.kind == kind for ray in probe.ray_processes):
        return skip(name, f"the {kind} on this machine is another user's, and its settings cannot be read")
    return skip(name, f"no {kind} on this machine")
