"""Owns the process tree of one rank: starts the user's command, ends it, and leaves not one descendant behind.

Standard library only, and one file: its text is sent to nodes on which nothing of ours is installed, and run there as
`python -I -S supervisor.py < request.json`.

Why a process of its own: when an actor goes away, Ray kills the worker's direct children with SIGKILL and leaks its
grandchildren. So the supervisor forks twice (it is no child of the worker any more), makes itself a child subreaper
(prctl(2); whatever is orphaned below it becomes its own child) and holds the read end of a named pipe, the lifeline,
whose write end lives in the Runner. When the Runner is gone, however it died, the lifeline reads end-of-file. A Runner
that stands still, or whose node the cluster has given up, does not renew its lease over the same pipe: then the rank is
ended too, because the same job may run elsewhere by now.

It is done when wait(2) says that it has no children: under a subreaper that means no descendants at all. Only processes
that SIGKILL does not end within the patience are left behind, and named in the result.
"""

# Importing pathlib would double the time that every rank waits for this file to start:
# ruff: noqa: PTH104, PTH110, PTH118, PTH123, PTH208
from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import select
import shlex
import signal
import sys
import time
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
RESULT = "exit.json"
# What the job and its SDK (jobs/sdk.py) find in the folder `control`: our word, and theirs.
STOP, CHECKPOINT = "stop.json", "checkpoint.json"
REPORT_SIZE = 1000
# In the rank's folder until its setup is over.
SETTING_UP = "setting-up"
LARGEST = 1 << 53
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
# A worker's own variables, which would mislead a driver or a tool that the user's command starts.
WORKER_ONLY = (
    "GPUSCHED_DATABASE_URL",
    "GPUSCHED_SECRET_KEY",
    "GPUSCHED_SECRET_KEY_FILE",
    "GPUSCHED_TOKEN",
    "RAY_AUTH_TOKEN",
    "RAY_JOB_ID",
    "RAY_LD_PRELOAD_ON_WORKERS",
    "RAY_NODE_ID",
    "RAY_RAYLET_PID",
    "LD_PRELOAD",
    "OLDPWD",
    "PYTHONBREAKPOINT",
    "SPT_NOENV",
)
RESULT_SIZE = 4096
# Seconds that the search for a cause may take; it limits itself to less.
LOOK_WITHIN = 5.0
# Seconds that a shell has to end with its command's code, before the command that it went on to is told to end too.
SHELL_PAUSE = 0.1
# Seconds that a Runner which stood still together with us, as in a machine that was suspended, has to renew its lease.
AWAKE_FOR = 15.0
MOST_NAMED = 20


def environment(inherited: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """The user's environment: the node's, without what belongs to Ray's worker, and the job's own on top.

    The cluster's token would make every job its administrator, so it is dropped unless the job's own variables carry
    it. Without GPUs the job must see none: a missing CUDA_VISIBLE_DEVICES would show it all of them.
    """
    env = {key: value for key, value in inherited.items() if key not in WORKER_ONLY}
    # The output goes to a file; unbuffered, a line is seen when it is printed.
    env["PYTHONUNBUFFERED"] = "1"
    env["CUDA_VISIBLE_DEVICES"] = ""
    env.update(own)
    return env


def script_text(setup: str, run: str, number: signal.Signals, mark: str = "") -> str:
    """The shell script of a rank. A failing `setup` ends it; `mark` is a file that is gone once `setup` is over.

    bash runs a trap only after its foreground command, so with this one the script ends with the code of the command
    that got the signal, and nothing behind it is started. A script with traps of its own is left alone.
    """
    trap = "" if re.search(r"\btrap\b", setup + run) else f"trap 'exit $?' {number.name.removeprefix('SIG')}\n"
    done = f"command -p rm -f -- {shlex.quote(mark)}\n" if mark else ""
    return f"{trap}set -e\n{setup}\nset +e\n{done}{run}\n" if setup else f"{trap}{run}\n"


# ---- the process tree ------------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Direct children of a process; empty when it is gone."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    except FileNotFoundError:
        if os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):
            return found
        return [other for other in all_pids() if parent(other) == pid]  # a kernel without CONFIG_PROC_CHILDREN
    except ProcessLookupError:
        pass
    return found


def all_pids() -> list[int]:
    """Every process that /proc shows."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on (state, parent, group, ...) after the command's name; empty = gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    name = text[text.index("(") + 1 : text.rindex(")")]
    return [name, *text[text.rindex(")") + 2 :].split()]


def parent(pid: int) -> int:
    """The parent's pid; 0 = gone."""
    fields = stat(pid)
    return int(fields[2]) if fields else 0


def descendants(root: int) -> list[int]:
    """Every process below `root`, parents before their children."""
    found = children(root)
    for pid in found:  # grows while it is walked
        found += [child for child in children(pid) if child not in found]
    return found


def start_of(pid: int) -> str:
    """When the process began, in ticks since boot: tells it from a later one with its pid. Empty = it is gone."""
    fields = stat(pid) if pid else []
    return fields[20] if fields else ""


def running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    fields = stat(pid)
    return bool(fields) and fields[1] not in "ZX"


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"SigCgt:"):
                return bool(int(line.split()[1], 16) & 1 << (number - 1))
    return False


def waits_for_child(pid: int) -> bool:
    """Whether a shell sleeps until a command of its ends; waits a moment for it to come to that."""
    for _ in range(50):
        fields = stat(pid)
        if not fields or fields[1] in "ZX":
            return False
        if fields[1] == "S" and children(pid):
            return True
        time.sleep(0.001)
    return False


def targets(pid: int, number: signal.Signals, *, also_shell: bool) -> set[int]:
    """Who gets the signal to end that is meant for `pid`.

    The process itself, and it alone: its helpers (data loaders) must live while it writes its checkpoint. But a shell
    without a handler would die and leave its command alone, so there it is the command's.

    Args:
        pid: the process that is to end.
        number: the signal, mostly SIGTERM.
        also_shell: `pid` is the shell that runs `script_text`, whose trap wants the signal too.
    """
    fields = stat(pid)
    if not fields:
        return set()
    below = children(pid) if also_shell or (fields[0] in SHELLS and not catches(pid, number)) else []
    found = {target for child in below for target in targets(child, number, also_shell=False)}
    return found | {pid} if also_shell or not below else found


def send(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_below(root: int) -> None:
    """SIGKILL everything below `root` once. By group first: the kernel lets no member fork its way out of that."""
    own_group = os.getpgrp()
    for pid in descendants(root):
        fields = stat(pid)
        if fields and int(fields[3]) not in (0, own_group):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(fields[3]), signal.SIGKILL)
        send(pid, signal.SIGKILL)


# ---- the supervisor --------------------------------------------------------------------------------------------------


class Supervisor:
    """Runs one rank from its start to the death of its last descendant. One thread; `run` returns the result."""

    def __init__(self, request: dict[str, Any], lifeline: int) -> None:
        self.request = request
        self.lifeline = lifeline
        self.number = signal.Signals[request.get("signal", "SIGTERM")]
        self.main = 0
        self.is_script = not request.get("argv")
        self.own_trap = self.is_script and re.search(r"\btrap\b", request.get("setup", "") + request["run"]) is not None
        self.main_status: int | None = None
        self.died = 0.0  # when the main process was seen to have ended
        self.message = ""
        self.cause = "exit"
        self.started = time.time()
        self.deadline: float | None = None  # monotonic; set once it is told to end
        self.signalled: set[int] = set()
        self.may_succeed = False  # the script's code is that of a command that got the signal
        self.quiet = 0.0  # monotonic; since when all that were signalled are gone
        self.buffer = b""
        self.patience: float = request.get("patience") or 0.0  # 0 = without end
        self.stuck: list[int] = []
        self.runner = (0, "")  # pid and start of who renews the lease
        self.lease_ends: float | None = None  # monotonic; None = nobody has to renew anything
        self._renew(request.get("lease", 0.0), request.get("runner", 0))
        wake_read, self.wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(self.wake_write, False)
        self.wake_read = wake_read

    # -- starting

    def start(self) -> None:
        """Start the user's command in a session of its own, its output at the end of the log."""
        signal.set_wakeup_fd(self.wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.stop(self.request["grace"], "supervisor was told to end"))
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        reserve_result(self.request["dir"])
        failed_read, failed_write = os.pipe()
        self.main = os.fork()
        if self.main == 0:
            self._exec(failed_write)
        os.close(failed_write)
        with os.fdopen(failed_read, "rb") as failed:
            self.message = failed.read().decode(errors="replace")

    def _exec(self, failed: int) -> None:
        """In the child: become the user's command. Never returns; says why it could not through `failed`."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            log = os.open(self.request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            env = environment(dict(os.environ), self.request["env"])
            for name in self.request.get("unset", ()):
                env.pop(name, None)
            os.chdir(self.request["cwd"])
            argv = self.request.get("argv") or self._script()
            os.execvpe(argv[0], argv, env)  # noqa: S606 - the user's own command, as the user wrote it
        except (OSError, ValueError) as error:  # ValueError: a variable holds what no environment can
            missing = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
            reason = error.strerror if isinstance(error, OSError) else "a variable holds a zero byte or no text"
            text = f"cannot start the command: {reason}{missing}"
            with contextlib.suppress(OSError):
                os.write(2, f"gpusched: {text}\n".encode())
                os.write(failed, text.encode())
        finally:
            os._exit(127)

    def _script(self) -> list[str]:
        path = os.path.join(self.request["dir"], "run.sh")
        setup, mark = self.request.get("setup", ""), os.path.join(self.request["dir"], SETTING_UP)
        if setup:
            open(mark, "wb").close()
        with open(path, "w", encoding="utf-8") as file:
            file.write(script_text(setup, self.request["run"], self.number, mark))
        return ["bash", path]

    # -- running

    def run(self) -> dict[str, Any]:
        """Wait for the end, whoever brings it about; then kill what is left. Returns what `exit.json` gets."""
        poll = select.poll()
        poll.register(self.wake_read, select.POLLIN)
        poll.register(self.lifeline, select.POLLIN)
        while not self._over():
            for fd, _events in poll.poll(self._pause()):
                if fd == self.wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wake_read, 4096)
                elif not self._listen():
                    poll.unregister(self.lifeline)
                    self.lease_ends = None
                    self.stop(self.request["grace"], "its Runner is gone")
            self._check_lease()
            self._reap()
        leaked = sum(map(running, descendants(os.getpid())))
        self._kill_all()
        return self._result(leaked if self.deadline is None else 0)

    def _pause(self) -> float | None:
        """Milliseconds to wait for the next event; None = as long as it takes."""
        if self.deadline is not None:
            return 50
        if self.lease_ends is None:
            return None
        self.expected = min(self.lease_ends, time.monotonic() + AWAKE_FOR / 3)
        return max(0.0, self.expected - time.monotonic()) * 1000 + 1

    def _renew(self, seconds: float, runner: int) -> None:
        """The Runner lives, and so does its node as far as the cluster knows."""
        if seconds:
            self.lease_ends = self.expected = time.monotonic() + seconds
            self.runner = runner, start_of(runner)

    def _check_lease(self) -> None:
        """End the rank when nobody has renewed the lease. The Runner is killed: it must not wake up later."""
        if self.lease_ends is None or self.deadline is not None:
            return
        now = time.monotonic()
        if now - self.expected > AWAKE_FOR / 3:  # it was us who stood still: the Runner may have, too
            self.lease_ends = max(self.lease_ends, now + AWAKE_FOR)
        if now < self.lease_ends:
            return
        self.lease_ends = None
        pid, start = self.runner
        if pid and start and start_of(pid) == start:
            send(pid, signal.SIGKILL)
        self.stop(self.request["grace"], "its Runner stood still, or its node was given up")

    def _over(self) -> bool:
        """Whether it is time to kill: the command ended by itself, or was told to and has, or its grace is over."""
        if self.deadline is None:
            return self.main_status is not None
        if time.monotonic() >= self.deadline:
            return True
        if self.signalled:
            self.signalled = set(filter(running, self.signalled))
            self.quiet = time.monotonic()
        if self.main_status is not None:
            return not self.signalled
        if not self.signalled and time.monotonic() - self.quiet > SHELL_PAUSE:
            self._terminate()
        return False

    def stop(self, grace: float, cause: str) -> None:
        """Begin to end it, or bring the end forward: the job's signal now, SIGKILL `grace` seconds later."""
        deadline = time.monotonic() + max(0.0, grace)
        if self.deadline is not None:
            if deadline < self.deadline:
                self.deadline = deadline
                self._tell(grace)
            return
        self.deadline = deadline
        self.cause = cause
        self._tell(grace)
        if grace > 0:
            self._terminate()

    def _tell(self, grace: float) -> None:
        """Leave word for processes that the signal does not reach: until when they may save."""
        control = self.request.get("control")
        if control:
            path = os.path.join(control, STOP)
            with contextlib.suppress(OSError):  # a full disk; those that get the signal hear of it all the same
                with open(path + ".tmp", "w", encoding="ascii") as file:
                    json.dump({"deadline": time.time() + max(0.0, grace)}, file)
                os.rename(path + ".tmp", path)

    def _terminate(self) -> None:
        prelude = self.is_script and not self.own_trap
        # Between two commands the trap would end the script with the code of the one before. By `exec` the script has
        # become its last command, whose code is its own.
        became = stat(self.main)[:1]
        self.may_succeed |= prelude and (SHELLS.isdisjoint(became) or waits_for_child(self.main))
        self.signalled = targets(self.main, self.number, also_shell=prelude)
        for pid in self.signalled:
            send(pid, self.number)

    def _listen(self) -> bool:
        """Read orders, one JSON object a line: {"stop": grace} or {"lease": seconds, "runner": pid}.

        False = end-of-file: no Runner holds the other end.
        """
        try:
            data = os.read(self.lifeline, 65536)
        except BlockingIOError:
            return True
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "stop" in order:
                self.stop(float(order["stop"]), "told to end")
            else:
                self._renew(float(order["lease"]), int(order["runner"]))
        return bool(data)

    def _reap(self) -> bool:
        """Collect what ended. False = there is nothing left below this process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main:
                self.main_status = status
                self.died = time.time()

    def _kill_all(self) -> None:
        """Kill until wait(2) says that nothing is left, or the patience is over: then say what is.

        A process in an uninterruptible call, or one that has become another user's, does not go.
        """
        pause, until = 0.0, time.monotonic() + self.patience
        while self._reap():
            if self.patience and time.monotonic() > until:
                self.stuck = [pid for pid in descendants(os.getpid()) if running(pid)]
                if self.stuck:
                    return
            kill_below(os.getpid())
            time.sleep(pause)
            pause = min(0.1, pause + 0.0005)

    def _result(self, leaked: int) -> dict[str, Any]:
        code, number = 0, None
        if self.main_status is not None:
            code = os.waitstatus_to_exitcode(self.main_status)
            if code < 0:
                number, code = -code, 128 - code
        elif self.stuck:
            number, code = signal.SIGKILL, 128 + signal.SIGKILL
            self.message = self.message or "its main process could not be killed"
        if code == 0 and self.deadline is not None and self.is_script and not (self.own_trap or self.may_succeed):
            code = 128 + self.number  # the trap ran between two commands; the script did not get to its end
        result: dict[str, Any] = {
            "exit_code": code,
            "signal": number,
            "started": self.started,
            "ended": time.time(),
            "leaked": leaked,
            "died": self.died or time.time(),
            "cause": self.cause,
            "message": self.message,
        }
        if code and self.deadline is None:
            result["found"] = self._look(code, number)
        if self.stuck:
            result["stuck"] = self.stuck[:MOST_NAMED]
        saved = read_report(self.request.get("control", ""), CHECKPOINT)
        return result if saved is None else {**result, "checkpoint": saved}

    def _look(self, code: int, number: int | None) -> dict[str, Any]:
        """Why it ended, as `endings.py` finds it in the log, as far as that is found in time."""
        import subprocess  # noqa: PLC0415 - only a rank that failed pays for it

        look = self.request.get("look")
        if not look:
            return {}
        setting_up = os.path.exists(os.path.join(self.request["dir"], SETTING_UP))
        asked = {"exit_code": code, "signal": number, "message": self.message, "setting_up": setting_up}
        found: dict[str, Any] = {}
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", look["program"]],
                input=json.dumps({**look, **asked, "log": self.request["log"]}).encode(),
                capture_output=True,
                check=False,
                timeout=LOOK_WITHIN,
            )
            for line in done.stdout.splitlines():
                found.update(json.loads(line))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            os.write(2, f"no cause was looked for: {error}\n".encode())
        return found


def reserve_result(directory: str) -> None:
    """Take the room for the result now, so that a disk which runs full later cannot swallow it."""
    with open(os.path.join(directory, RESULT + ".tmp"), "wb") as file:
        file.write(b" " * RESULT_SIZE)
        os.fsync(file.fileno())


def write_result(directory: str, result: dict[str, Any]) -> None:
    """Write `exit.json` so that it is there whole or not at all, also after a power cut."""
    path = os.path.join(directory, RESULT)
    with open(path + ".tmp", "r+b") as file:
        file.write(json.dumps(result).encode().ljust(RESULT_SIZE))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)
    folder = os.open(directory, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def read_result(directory: str) -> dict[str, Any] | None:
    """The rank's result once its last process is gone; None before."""
    try:
        with open(os.path.join(directory, RESULT), "rb") as file:
            result: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    return result


def read_report(control: str, name: str) -> dict[str, Any] | None:
    """What the job has reported last under this name; None = nothing that can be read."""
    try:
        with open(os.path.join(control, name), "rb") as file:
            return report_of(name, file.read(REPORT_SIZE))
    except OSError:
        return None


def report_of(name: str, words: bytes | str) -> dict[str, Any] | None:
    """A report from the text of its file; None = it is none. The job may have written anything."""
    try:
        found = json.loads(words)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    if name == CHECKPOINT:
        whole = all(map(is_number, (found.get("step"), found.get("time"))))
        return {"step": int(found["step"]), "time": float(found["time"])} if whole else None
    whole = is_number(found.get("fraction")) and 0 <= found["fraction"] <= 1
    return {"fraction": float(found["fraction"])} if whole else None


def is_number(value: object) -> bool:
    """Whether it is a number that a database takes."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def become_subreaper() -> None:
    """Orphans below this process become its children from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def detach() -> None:
    """Fork twice and go on in the grandchild, in a session without a terminal. The first process exits with 0."""
    if os.fork():
        os.wait()
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def main() -> None:
    """Read the request from standard input; print {"pid", "main"} once the command runs, then close standard output."""
    request = json.load(sys.stdin)
    # With a write end of its own it never reads end-of-file: it lives on when who started it is gone.
    mode = os.O_RDWR if request.get("outlives") else os.O_RDONLY
    try:
        lifeline = os.open(request["lifeline"], mode | os.O_NONBLOCK)
    except OSError as error:
        sys.exit(f"gpusched: no lifeline: {errno.errorcode[error.errno or 0]} {error.filename}")
    detach()
    become_subreaper()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(os.open(os.path.join(request["dir"], "supervisor.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    supervisor = Supervisor(request, lifeline)
    supervisor.start()
    os.write(1, json.dumps({"pid": os.getpid(), "main": supervisor.main}).encode())
    os.dup2(null, 1)
    write_result(request["dir"], supervisor.run())


if __name__ == "__main__":
    main()
