"""Start and stop the control plane of this machine, from another process. Light: standard library and psutil only."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..jobs.errors import ConflictError, GpuschedError, NotFoundError, UnreachableError
from .paths import Paths

DEFAULT_PORT = 6810
START_WITHIN = 60.0
READY_WITHIN = 120.0
STOP_WITHIN = 20.0
LOG_LIMIT = 20 << 20
"""Bytes after which the control plane's log is begun anew; the one before is kept."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Running:
    """A control plane that runs on this machine.

    Attributes:
        url, token: where it answers, and what it takes for writes.
        pid, started: its process, and when that began (guards against a recycled pid).
        certificate: file of the one that it serves; empty = plain HTTP.
    """

    url: str
    token: str
    pid: int
    started: float
    version: str
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """How to start one. Empty or None = the default.

    Attributes:
        policy: as users name it. ray_address: join this cluster. gpus: GPUs of a local Ray.
        host, port: where to listen. database: URL. health: limits of the nodes' health checks.
        tls_cert, tls_key: the certificate that it serves. insecure: listen beyond loopback without one.
        environment: further variables for the process.
    """

    policy: str = ""
    ray_address: str = ""
    gpus: int | None = None
    host: str = ""
    port: int = 0
    database: str = ""
    health: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    insecure: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def process_start(pid: int) -> float:
    """When a process began, in seconds; 0 = there is none. Two processes with one pid differ in it."""
    import psutil  # noqa: PLC0415 - only who starts or stops something needs it

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return 0.0


def read_state(paths: Paths) -> dict[str, Any]:
    """What a control plane last wrote down of itself; empty = nothing, or nothing that can be read."""
    try:
        found = json.loads(paths.control_plane.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_state(paths: Paths, state: dict[str, Any]) -> None:
    """Write down where a control plane answers: whole or not at all, for its owner's eyes only."""
    new = paths.control_plane.with_suffix(".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(state, file)
    new.replace(paths.control_plane)


def running(paths: Paths) -> Running | None:
    """The control plane of a state directory, if its process lives."""
    state = read_state(paths)
    try:
        found = Running(
            str(state["url"]),
            str(state["token"]),
            int(state["pid"]),
            float(state["started"]),
            str(state["version"]),
            str(state.get("certificate") or ""),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return found if found.pid and same(found.pid, found.started) else None


def same(pid: int, started: float) -> bool:
    """Whether the process that began then under this pid still lives."""
    begun = process_start(pid)
    return bool(begun) and abs(begun - started) < 0.02  # noqa: PLR2004 - clocks tick a hundred times a second


def ensure_running(
    paths: Paths | None = None, *, start: Start | None = None, say: Say = lambda _line: None, ready: bool = False
) -> Running:
    """The control plane of this machine, started if it does not run. Two who start it at once get the same one.

    Args:
        paths: the state directory.
        start: how, if it has to be started.
        say: called with a line of progress at a time, at least every 5 seconds.
        ready: wait until nodes are known, too.

    Raises:
        GpuschedError: it does not start; the message says why, as its log does.
        UnreachableError: it runs, but does not answer.
    """
    paths = paths or Paths.default()
    paths.make()
    with _turn(paths, say):
        found = running(paths)
        if found is not None and not _answers(found, say):
            found = None  # it was just ending
        if found is None:
            say("starting the control plane")
            found = _start(paths, start or Start(), say)
    if ready:
        wait_ready(found, say)
    return found


def wait_ready(plane: Running, say: Say = lambda _line: None, within: float = READY_WITHIN) -> dict[str, Any]:
    """Until it knows nodes and starts jobs, or stands by for another that does; its status then.

    Raises:
        GpuschedError: it is not ready in time, or Ray cannot be started.
    """
    told, spoken, end = 0, time.monotonic(), time.monotonic() + within
    while True:
        status = ask(plane, "GET", "/v1/status")
        lines = status.get("progress", [])
        for line in lines[told:]:
            say(line)
            spoken = time.monotonic()
        told = len(lines)
        ray = status.get("ray", {})
        if status["ready"] or status.get("standby"):
            return status
        if ray.get("error"):
            raise GpuschedError(f"Ray does not start: {ray['error']}", hint="`gpusched doctor` says what is missing")
        if time.monotonic() > end:
            raise GpuschedError(
                f"no nodes after {within:.0f} s: {ray.get('state', 'Ray does not answer')}",
                hint="`gpusched doctor` says what is missing",
            )
        if time.monotonic() - spoken > 4:  # noqa: PLR2004 - nobody should wonder for five seconds
            say(f"still waiting: {ray.get('state') or 'nodes are not known yet'}")
            spoken = time.monotonic()
        time.sleep(0.1)


def stop(
    paths: Paths | None = None, *, force: bool = False, keep_ray: bool = False, say: Say = lambda _line: None
) -> list[str]:
    """Stop the control plane of this machine, and the Ray that it started. Nothing else is touched.

    Args:
        paths: the state directory.
        force: also if jobs run on the Ray that would end.
        keep_ray: leave Ray, and what runs on it, alone.
        say: called with a line of progress at a time.

    Returns:
        What was stopped, in words.

    Raises:
        NotFoundError: nothing runs.
        ConflictError: jobs run that would end.
    """
    from ..cluster.ray import local  # noqa: PLC0415 - starts and stops only

    paths = paths or Paths.default()
    done = []
    if not paths.root.is_dir():
        raise NotFoundError(f"no control plane runs in {paths.root}")
    with _turn(paths, say):
        plane = running(paths)
        ray = None if keep_ray else local.running(paths.root)
        if plane is None and ray is None:
            raise NotFoundError(f"no control plane runs in {paths.root}")
        if plane is not None and ray is not None and not force:
            _refuse_with_jobs(plane)
        if plane is not None:
            say("stopping the control plane")
            _end(plane)
            done.append(f"the control plane (process {plane.pid})")
        if ray is not None:
            say("stopping the local Ray")
            ended = local.stop(paths.root)
            done.append(f"the local Ray at {ray.address} ({ended} processes)")
    return done


def ask(plane: Running, method: str, path: str, timeout: float = 10.0) -> dict[str, Any]:
    """One small request.

    Raises:
        UnreachableError: it does not answer, or not well.
    """
    data = b"{}" if method == "POST" else None
    request = urllib.request.Request(  # noqa: S310 - the URL is our own control plane's
        plane.url + path, data, {"Authorization": f"Bearer {plane.token}"}, method=method
    )
    try:
        with _opener(plane.certificate).open(request, timeout=timeout) as reply:
            answer: dict[str, Any] = json.load(reply)
    except (OSError, ValueError) as error:
        raise UnreachableError(f"the control plane at {plane.url} does not answer: {error}") from error
    return answer


def _opener(certificate: str) -> urllib.request.OpenerDirector:
    """A proxy of the environment is not asked for what runs on this machine; its certificate is known from its file."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if certificate:
        from .tls import client_context  # noqa: PLC0415 - for https alone

        handlers.append(urllib.request.HTTPSHandler(context=client_context(certificate, pinned=True)))
    return urllib.request.build_opener(*handlers)


# Parts -----------------------------------------------------------------------------------------------------------


@contextmanager
def _turn(paths: Paths, say: Say) -> Iterator[None]:
    """Hold the lock of who starts and stops things in a state directory."""
    with paths.start_lock.open("a") as lock:
        begun = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                waited = time.monotonic() - begun
                if waited > START_WITHIN:
                    raise GpuschedError(
                        "another gpusched has been starting or stopping the control plane for a minute",
                        hint=f"if none does, its lock is {paths.start_lock}",
                    ) from None
                if int(waited * 10) % 40 == 1:
                    say("waiting for another gpusched, which is starting the control plane")
                time.sleep(0.1)
        yield


def _start(paths: Paths, how: Start, say: Say) -> Running:
    """Spawn it, detached from this terminal, and wait until it answers."""
    options = [("--home", str(paths.root)), ("--policy", whole_name(how.policy)), ("--ray-address", how.ray_address)]
    options += [
        ("--host", how.host),
        ("--port", str(how.port or "")),
        ("--gpus", "" if how.gpus is None else str(how.gpus)),
        ("--health", how.health),
    ]
    options += [("--tls-cert", _whole(how.tls_cert)), ("--tls-key", _whole(how.tls_key))]
    command = [sys.executable, "-m", f"{__package__}.control_plane", *(["--insecure"] if how.insecure else [])]
    command += [word for name, value in options if value for word in (name, value)]
    if paths.control_plane_log.exists() and paths.control_plane_log.stat().st_size > LOG_LIMIT:
        paths.control_plane_log.replace(paths.control_plane_log.with_suffix(".log.1"))
    handle = os.open(paths.control_plane_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "ab") as log:
        begin = log.tell()
        process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=paths.root,
            env=_environment(how),
            start_new_session=True,  # it outlives the shell, and a Ctrl-C there is not for it
        )
    end, spoken = time.monotonic() + START_WITHIN, time.monotonic()
    while True:
        found = running(paths)
        if found is not None and found.pid == process.pid and _answers(found, say):
            return found
        code = process.poll()
        if code is not None:
            raise _failed(paths.control_plane_log, begin, code)
        if time.monotonic() > end:
            process.kill()
            raise GpuschedError(
                f"the control plane did not answer within {START_WITHIN:.0f} s", hint=f"see {paths.control_plane_log}"
            )
        if time.monotonic() - spoken > 4:  # noqa: PLR2004 - nobody should wonder for five seconds
            say("still starting the control plane")
            spoken = time.monotonic()
        time.sleep(0.02)


def _whole(file: str) -> str:
    return str(Path(file).expanduser().absolute()) if file else ""


def whole_name(name: str) -> str:
    """A policy's name; a file is named from the root, because the process runs elsewhere."""
    file, colon, attribute = name.rpartition(":")
    return f"{Path(file).absolute()}:{attribute}" if colon and file.endswith(".py") else name


def _environment(how: Start) -> dict[str, str]:
    """Ours, with this package to be found from any directory.

    Without the secrets of whoever happens to start it: a local Ray, and with it every job of everybody, would inherit
    them. Those of a job come with the job.
    """
    package = str(Path(__file__).parents[1].parent)
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    inherited = {name: value for name, value in os.environ.items() if not looks_secret(name)}
    environment = {**inherited, **how.environment, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    if how.database:
        environment["GPUSCHED_DATABASE_URL"] = how.database
    return environment


def looks_secret(name: str) -> bool:
    """Whether a variable seems to hold a secret that is not for the control plane, Ray or PostgreSQL themselves."""
    return _SECRET.search(name) is not None and not name.startswith(("GPUSCHED_", "RAY_", "PG"))


_SECRET = re.compile(
    r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|(?:API|ACCESS|PRIVATE|AUTH)_?KEY)$", re.IGNORECASE
)


def _failed(log: Path, begin: int, code: int) -> GpuschedError:
    """Why it ended, from what it wrote last."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    words = errors[-1] if errors else (lines[-1] if lines else f"it ended with exit code {code}")
    return GpuschedError(f"the control plane did not start: {words}", hint=hints[-1] if hints else f"see {log}")


def _answers(plane: Running, say: Say) -> bool:
    """Wait until it answers: it may have been started this moment. False = its process ended.

    Raises:
        UnreachableError: it lives and does not answer.
    """
    end, spoken = time.monotonic() + 10.0, time.monotonic()
    while True:
        try:
            ask(plane, "GET", "/v1/status", timeout=5.0)
        except UnreachableError:
            if not same(plane.pid, plane.started):
                return False
            if time.monotonic() > end:
                raise
            if time.monotonic() - spoken > 4:  # noqa: PLR2004 - as above
                say("the control plane does not answer yet")
                spoken = time.monotonic()
            time.sleep(0.05)
        else:
            return True


def _refuse_with_jobs(plane: Running) -> None:
    try:
        status = ask(plane, "GET", "/v1/status")
    except UnreachableError:
        return
    counts = status.get("jobs") or {}
    busy = sum(counts.get(state, 0) for state in ("STARTING", "RUNNING", "PREEMPTING", "STOPPING"))
    if busy and status.get("ray", {}).get("local"):
        raise ConflictError(
            f"{busy} job{'s run' if busy > 1 else ' runs'} on the local Ray, which would end with it",
            hint="wait for them, cancel them, or --force; --keep-ray stops the control plane alone, and jobs go on",
        )


def _end(plane: Running) -> None:
    """Ask it, then tell it, then make it. The pid is looked at each time, so that nobody else's is hit."""
    try:
        ask(plane, "POST", "/v1/shutdown")
    except UnreachableError:
        _signal(plane, signal.SIGTERM)
    if _gone(plane, STOP_WITHIN):
        return
    _signal(plane, signal.SIGTERM)
    if not _gone(plane, 5.0):
        _signal(plane, signal.SIGKILL)
        _gone(plane, 5.0)


def _signal(plane: Running, number: int) -> None:
    if same(plane.pid, plane.started):
        os.kill(plane.pid, number)


def _gone(plane: Running, within: float) -> bool:
    end = time.monotonic() + within
    while same(plane.pid, plane.started):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
