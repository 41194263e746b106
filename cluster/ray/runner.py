"""The Runner: a detached Ray actor that holds one bundle of a gang and starts its rank through the supervisor.

Its class travels to the nodes by value, and the supervisor and `train_callback` as text: nodes need Ray and nothing of
ours. So this file imports the standard library and Ray alone. It must never import torch: a Runner's start is part of
every job's start.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from .endings import built_in, oom_kills, tail

NAMESPACE = "gpusched"
TAG = "GPUSCHED_TAG"
HELD = ":held"
"""Behind a Runner's name: its successor, which holds the rank but none of the bundle's resources."""
RESULT = "exit.json"
LOG = "output.log"
SUPERVISOR = "supervisor.py"
ENDINGS = "gpusched_endings.py"
"""Under which name ranks have `endings.py`."""
CONTROL = "control"
REPORTS = ("checkpoint.json", "progress.json")
"""What the job says of itself (jobs/sdk.py), in the folder CONTROL of its rank."""
REPORT_SIZE = 1000
MOST_WORDS = 500
"""Characters of an error that are told as a cause."""
REPORT_EVERY = 0.5
"""Seconds between two looks at the reports."""
SIOCGIFADDR = 0x8915
LEASE = 60.0
"""Seconds that a rank outlives a Runner which stands still, or a node that the cluster has given up."""
RENEW_EVERY = 15.0
FENCE_WITHIN = 30.0
"""Seconds that an earlier attempt may take to end the commit that it is in the middle of."""


def scratch_root(scratch: str) -> Path:
    """The scratch directory of this node; `scratch` empty = the default one."""
    return Path(scratch) if scratch else Path(os.environ.get("TMPDIR", "/tmp")) / f"gpusched-{os.getuid()}"  # noqa: S108 - the folder is made with mode 0700


def rank_folder(scratch: str, owner: str, attempt: tuple[int, int], rank: int) -> Path:
    """Where a rank's log, result and workdir are on its node. A control plane's files are its own by `owner`.

    `attempt` is the job's id and the attempt's number.
    """
    return scratch_root(scratch) / owner / f"{attempt[0]}-{attempt[1]}" / f"rank-{rank}"


def read_part(path: Path, offset: int, limit: int) -> tuple[bytes, int]:
    """At most `limit` bytes of a file from `offset` on (negative: from its end), and the file's size."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, offset + size if offset < 0 else offset))
        return file.read(limit), size


def checkpoint_folder(asked: str, owner: str, job: int) -> str:
    """Where a job's checkpoints go on this node: as it asked, else a folder of its own that every attempt finds again.

    A path is made; an address such as s3://bucket/prefix is the job's own business.
    """
    if "://" in asked:
        return asked
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(asked or f"{cache}/gpusched/checkpoints/{owner}/{job}").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def raise_fence(folder: str, owner: str, attempt: tuple[int, int]) -> str:
    """Note beside a job's checkpoints that this attempt has begun: earlier ones can commit nothing there any more.

    The number is written under the lock that `commit` of the SDK holds between its look at the number and its rename,
    so no commit of an earlier attempt follows our return.

    Returns:
        The file that says so, for the job's processes; empty when the checkpoints lie at an address, not in a folder.

    Raises:
        OSError: a later attempt has begun, an earlier one does not end its commit, or the folder cannot be written.
    """
    if "://" in folder:
        return ""
    job, number = attempt
    fence = Path(folder, ".gpusched", f"{owner}-{job}")
    fence.parent.mkdir(exist_ok=True)
    with locked(Path(f"{fence}.lock"), f"an earlier attempt of job {job} is in the middle of a commit"):
        with contextlib.suppress(FileNotFoundError):
            if int(fence.read_text()) > number:
                raise OSError(f"attempt {fence.read_text()} of job {job} has begun already")
        draft = fence.with_name(f"{fence.name}.{socket.gethostname()}-{os.getpid()}")
        draft.write_text(str(number))
        draft.replace(fence)
    return str(fence)


@contextlib.contextmanager
def locked(path: Path, why: str) -> Iterator[None]:
    """Hold a lock file. Where the file system has no locks, go on without.

    Raises:
        OSError: somebody holds it for longer than FENCE_WITHIN; `why` says what that means.
    """
    deadline = time.monotonic() + FENCE_WITHIN
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(why) from None
                time.sleep(0.02)
            except OSError as error:
                if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
                    raise
                break
            else:
                break
        yield


MOST_UNPACKED = 1 << 30
"""Bytes of a workdir on a node; a client packs half of that at most."""
MOST_MEMBERS = 200_000


def unpack(archive: bytes, folder: Path) -> None:
    """Unpack a workdir's tar.gz. Paths and links that lead out of `folder`, devices, and what swells are refused."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        size = 0
        for number, member in enumerate(tar):
            size += member.size
            if size > MOST_UNPACKED:
                raise tarfile.TarError(f"the workdir holds more than {MOST_UNPACKED >> 20} MiB")
            if number >= MOST_MEMBERS:
                raise tarfile.TarError(f"the workdir holds more than {MOST_MEMBERS:,} files")
            tar.extract(member, folder, filter="data")


def bind_free_port(address: str) -> socket.socket:
    """A socket bound to a port that nobody else has; it keeps the port until it is closed."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((address, 0))
    return holder


def gloo_interface(address: str) -> str:
    """The network interface that gloo must be told of; empty when it finds the way by itself.

    gloo listens where the host's name leads. Where that is a loopback address (as Debian's /etc/hosts has it) and the
    node's own is not, other nodes could not reach it.
    """
    with contextlib.suppress(OSError):
        if address.startswith("127.") or not socket.gethostbyname(socket.gethostname()).startswith("127."):
            return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _index, name in socket.if_nameindex():
            request = array.array("B", struct.pack("256s", name.encode()[:15]))
            with contextlib.suppress(OSError):
                fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
                if socket.inet_ntoa(request[20:24].tobytes()) == address:
                    return name
    return ""


def exit_with_raylet() -> None:
    """End this process when its raylet is gone.

    Ray's own worker does that only once no call runs in it any more, and a Runner's `wait` runs as long as the rank.
    """
    raylet = int(os.environ.get("RAY_RAYLET_PID") or os.getppid())

    def watch() -> None:
        try:
            select.select([os.pidfd_open(raylet)], [], [])
        except ProcessLookupError:
            pass
        except OSError:  # a kernel before 5.3
            while Path(f"/proc/{raylet}").exists():
                time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-raylet", daemon=True).start()


def kill_tagged(tag: str) -> int:
    """SIGKILL every process whose environment carries the tag, again and again until there is none. Returns how many.

    The net below the supervisor, for the case that somebody killed it.
    """
    needle = f"{TAG}={tag}\0".encode()
    killed = 0
    while True:
        found = 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if needle in (entry / "environ").read_bytes() + b"\0":
                    os.kill(int(entry.name), signal.SIGKILL)
                    found += 1
        killed += found
        if not found:
            return killed


def given_up() -> bool | None:
    """Whether the cluster has declared this node dead; None = it cannot be asked, or its raylet stands still. Blocks.

    A raylet that is stopped, or cut off for a while, ends nothing here by itself, and meanwhile its jobs are run again
    elsewhere.
    """
    context = ray.get_runtime_context()
    try:
        client = ray._private.worker.global_worker.gcs_client  # noqa: SLF001 - Ray has no public call that is this light
        alive: bool = client.check_alive([ray.NodeID.from_hex(context.get_node_id())], timeout=5)[0]
    except Exception:  # noqa: BLE001 - the head is away, in whatever way: the raylet gives up by itself in time
        return None if raylet_stopped() else False
    return not alive


def raylet_stopped() -> bool:
    """Whether somebody has stopped this node's raylet (SIGSTOP, a debugger)."""
    raylet = int(os.environ.get("RAY_RAYLET_PID") or os.getppid())
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{raylet}/stat").read_text()
        return text[text.rindex(")") + 2] in "Tt"
    return False


class Runner:
    """One rank's holder. An asyncio actor: it waits, stops and reads logs at the same time.

    Args:
        owner: identity of the control plane that it works for.
        attempt: job id and number of the attempt.
        rank: of the piece.
        scratch: directory on the nodes; empty = the default of `rank_folder`.
        files: texts of the files that the rank needs, by name: `supervisor.py` and what its Python is to find.
        title: the job's name, by which the Ray dashboard shows it.
    """

    def __init__(  # noqa: PLR0917 - Ray hands them on by position
        self, owner: str, attempt: tuple[int, int], rank: int, scratch: str, files: dict[str, str], title: str = ""
    ) -> None:
        exit_with_raylet()
        self.args = (owner, attempt, rank, scratch, files, title)
        self.title = title
        self.owner = owner
        self.name = f"gs:{owner}:{attempt[0]}:{attempt[1]}:{rank}"
        self.term = 0
        self.tag = f"{owner}:{attempt[0]}:{attempt[1]}:{rank}"
        self.folder = rank_folder(scratch, owner, attempt, rank)
        self.files = files
        self.address = ray.util.get_node_ip_address()
        self.port_holder = bind_free_port(self.address)
        self.port = self.port_holder.getsockname()[1]
        self.lock = asyncio.Lock()
        self.started: dict[str, Any] | None = None
        self.lifeline = -1
        self.ended = asyncio.Event()
        self.result: dict[str, Any] = {}
        self.releasing = False
        self.gpus: list[str] | None = None

    def __repr__(self) -> str:
        return f"{self.title} (job {self.args[1][0]}, attempt {self.args[1][1]}) rank {self.args[2]}"

    async def describe(self) -> dict[str, Any]:
        """Where it is and what Ray gave it: what the other ranks and the control plane must know before the start."""
        context = ray.get_runtime_context()
        if self.gpus is None:
            self.gpus = [str(gpu) for gpu in context.get_accelerator_ids().get("GPU", [])]
        return {
            "node_id": context.get_node_id(),
            "actor": context.get_actor_id(),
            "owner": self.owner,
            "address": self.address,
            "hostname": socket.gethostname(),
            "gpus": self.gpus,
            "port": self.port,
            "gloo_interface": gloo_interface(self.address),
            "log": str(self.folder / LOG),
            "started": self.started,
            "result": self.result if self.ended.is_set() else None,
        }

    async def start(self, request: dict[str, Any], archive: bytes | None = None) -> dict[str, Any]:
        """Start the rank; again = the same answer.

        Args:
            request: `setup`, `run`, `env` (all of the job's own variables), `grace` (seconds).
            archive: tar.gz of the workdir, unpacked before; None = an empty directory.

        Returns:
            `pid` of the supervisor and `main` of the user's first process; or `error`, in words, and nothing runs.
        """
        async with self.lock:
            if self.started is None and not self.ended.is_set():
                try:
                    self.started = await asyncio.to_thread(self._start, request, archive)
                except (OSError, EOFError, tarfile.TarError, subprocess.SubprocessError) as error:
                    errors: bytes | None = getattr(error, "stderr", None)
                    text = errors.decode(errors="replace").strip() if errors else error
                    which = "workdir" if isinstance(error, EOFError | tarfile.TarError) else "node"
                    words = f"cannot start the rank: {text}"
                    found = {"cause": "start", "which": which, "cause_detail": words[:MOST_WORDS]}
                    self._end({"exit_code": 126, "cause": "exit", "message": words, "found": found})
                else:
                    self._watch(self.started["pid"])
            return self.started or {"error": self.result["message"]}

    def _start(self, request: dict[str, Any], archive: bytes | None) -> dict[str, Any]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        if archive is not None:
            unpack(archive, work)
        fifo = self.folder / "lifeline"
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo, 0o600)
        self.lifeline = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        control = self.folder / CONTROL
        control.mkdir(exist_ok=True)
        library = self.folder / "lib"
        library.mkdir(exist_ok=True)
        for name, text in self.files.items():
            (library / name).write_text(text)
        paths = [str(library), request["env"].get("PYTHONPATH") or os.environ.get("PYTHONPATH", "")]
        checkpoints = checkpoint_folder(request["env"].get("GPUSCHED_CHECKPOINT_DIR", ""), self.owner, self.args[1][0])
        own = {
            TAG: self.tag,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "GPUSCHED_CHECKPOINT_DIR": checkpoints,
            "GPUSCHED_FENCE": raise_fence(checkpoints, self.owner, self.args[1]),
            "GPUSCHED_CONTROL_DIR": str(control),
        }
        order = {
            **request,
            "env": {**request["env"], **own},
            "dir": str(self.folder),
            "control": str(control),
            "cwd": str(work),
            "log": str(self.folder / LOG),
            "lifeline": str(fifo),
            "lease": LEASE,
            "runner": os.getpid(),
            "look": {
                "program": str(library / ENDINGS),
                "patterns": request.get("patterns", []),
                "kills": oom_kills(),
            },
        }
        self.port_holder.close()  # from here on the port is the job's
        done = subprocess.run(  # noqa: S603 - our own supervisor
            [sys.executable, "-I", "-S", str(library / SUPERVISOR)],
            input=json.dumps(order).encode(),
            capture_output=True,
            check=True,
            timeout=30,
        )
        started: dict[str, Any] = json.loads(done.stdout)
        return {**started, "time": time.time()}

    def _watch(self, pid: int) -> None:
        """Set `ended` when the supervisor is gone; its result is on disk by then."""
        loop = asyncio.get_running_loop()
        self.renewing = loop.create_task(self._renew())
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._supervisor_gone()
        except OSError:  # a kernel before 5.3
            self._poll_task = loop.create_task(self._poll(pid))
        else:

            def gone() -> None:
                loop.remove_reader(descriptor)
                os.close(descriptor)
                self._supervisor_gone()

            loop.add_reader(descriptor, gone)

    async def _poll(self, pid: int) -> None:
        while Path(f"/proc/{pid}").exists() and not (self.folder / RESULT).exists():  # noqa: ASYNC110, ASYNC240 - no event tells it
            await asyncio.sleep(0.2)
        self._supervisor_gone()

    async def _renew(self) -> None:
        """Tell the supervisor that all is well, as long as it is. On a node that was given up the rank has to end."""
        words = json.dumps({"lease": LEASE, "runner": os.getpid()}).encode() + b"\n"
        while not self.ended.is_set():
            lost = await asyncio.to_thread(given_up)
            if lost:
                os._exit(1)  # the lifeline ends with us
            if lost is False and self.lifeline >= 0:
                with contextlib.suppress(BlockingIOError):  # it stands still itself, and has heard enough
                    os.write(self.lifeline, words)
            await asyncio.sleep(RENEW_EVERY)

    def _supervisor_gone(self) -> None:
        try:
            result = json.loads((self.folder / RESULT).read_bytes())
        except FileNotFoundError:
            killed = kill_tagged(self.tag)
            text = f"its supervisor was killed; {killed} processes were killed after it"
            result = {"exit_code": 137, "signal": 9, "cause": "exit", "message": text}
            asked = {"exit_code": 137, "signal": 9}
            result["found"] = built_in(asked, tail(str(self.folder / LOG)))
        self._end(result)

    def _end(self, result: dict[str, Any]) -> None:
        self._close_lifeline()
        self.result = result
        self.ended.set()

    def _close_lifeline(self) -> None:
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    async def wait(self) -> dict[str, Any]:
        """Return the rank's result (the supervisor's `exit.json`) once its last process is gone.

        With `ago`, the seconds since its main process died: the clocks of nodes differ.
        """
        await self.ended.wait()
        return {**self.result, "ago": max(0.0, time.time() - self.result.get("died", time.time()))}

    async def news(self, seen: dict[str, str]) -> dict[str, Any]:
        """Return what the job reports once that differs from `seen`: `files` (text by name), and `now` on this node."""
        while True:
            files = {}
            for name in REPORTS:
                with contextlib.suppress(OSError):
                    files[name] = read_part(self.folder / CONTROL / name, 0, REPORT_SIZE)[0].decode(errors="replace")
            if files != seen:
                return {"files": files, "now": time.time()}
            await asyncio.sleep(REPORT_EVERY)

    async def obey(self, term: int) -> None:
        """From now on orders of control planes that led before this term are not carried out."""
        self.term = max(self.term, term)

    async def stop(self, grace: float, term: int = 0) -> None:
        """Begin to end the rank, `grace` seconds from now at the latest; `wait` tells when it is done.

        An order of a term older than one that was obeyed changes nothing; a term of 0 is nobody's in particular.
        """
        if 0 < term < self.term:
            return
        self.term = max(self.term, term)
        async with self.lock:
            if self.lifeline >= 0:
                os.write(self.lifeline, json.dumps({"stop": grace}).encode() + b"\n")
            elif not self.ended.is_set() and self.started is None:
                self._end({"exit_code": 143, "cause": "told to end", "message": "stopped before it started"})

    async def read_log(self, offset: int, limit: int) -> tuple[bytes, int]:
        """A part of the rank's output, and its size. Both empty while there is none."""
        try:
            return read_part(self.folder / LOG, offset, limit)
        except FileNotFoundError:
            return b"", 0

    # ---- Ray Train: the bundle's resources go to the script's own workers

    async def release(self, placement_group: PlacementGroup) -> None:
        """Hand the rank to a successor without resources, so that actors of the job itself can take the bundle's.

        The caller sees this Runner's death as the end of the call: that is when the resources are free.
        """
        if self.releasing or self.started is None:
            return
        self.releasing = True
        bundle = int(self.name.rsplit(":", 1)[1])
        successor = (
            ray.remote(type(self))
            .options(
                name=self.name + HELD,
                namespace=NAMESPACE,
                lifetime="detached",
                num_cpus=0,
                num_gpus=0,
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group, bundle),
            )
            .remote(*self.args)
        )
        await successor.take_over.remote(self.started, self.gpus)
        # Not `exit_actor`: that waits for the calls that run here, and `wait` runs as long as the rank.
        os._exit(0)

    async def asks(self) -> None:
        """A worker of the script has asked whether it is preempted: from now on it gets the grace to act on it."""
        (self.folder / CONTROL / "asks").touch()

    async def take_over(self, started: dict[str, Any], gpus: list[str]) -> None:
        """Become the holder of a rank that another Runner started."""
        self.started = started
        self.gpus = gpus
        self.lifeline = os.open(self.folder / "lifeline", os.O_RDWR | os.O_NONBLOCK)
        self._watch(started["pid"])
