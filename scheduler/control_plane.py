"""The control plane as a process: `python -m gpusched.scheduler.control_plane`. It never imports Ray.

It puts together what controller.py, service.py and server.py are: store, cluster, loop, HTTP; writes down where it
answers; finds or starts a Ray; and ends on SIGTERM, SIGINT or `POST /v1/shutdown`. What runs on the cluster goes on.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import getpass
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TextIO

from .. import __version__
from ..cluster.clock import WallClock
from ..cluster.health import parse_limits
from ..cluster.ray import local
from ..cluster.ray.backend import RayBackend, identity
from ..jobs.errors import ConflictError, GpuschedError, NotFoundError
from ..jobs.job import Job
from ..policies.catalog import DEFAULT, load
from ..policies.greedy import Policy
from .access.tokens import PREFIX
from .api.gate import is_loopback
from .archivist import Archivist
from .controller import Controller
from .daemon import DEFAULT_PORT, process_start, read_state, write_state
from .paths import Paths
from .recorder import Recorder
from .server import Server
from .service import Service
from .settings import ArchivePolicy, read_settings
from .snapshots import ANNOTATION, SnapshotStore
from .store.archive import Archive
from .store.keyring import KEY_VARIABLE, Keyring
from .store.lease import Lease
from .store.past import chosen_policy
from .store.snapshots import SharedSnapshots
from .store.sql import SqlStore
from .tls import Served
from .views import JSON, iso

log = logging.getLogger("gpusched")

NO_RAY = "none"
"""The address that stands for doing without a cluster."""
WATCH_RAY = 1.0
"""Seconds between two looks at whether the local Ray still runs."""
RETRY_RAY = 30.0
"""Seconds before a local Ray that did not start is tried again."""


class RayLink:
    """Finds a Ray cluster for the backend, or starts one on this machine, without holding anybody up.

    Args:
        backend: told the address.
        state: state directory; what was started is recorded there.
        address: join this cluster and no other; empty = find or start one; `none` = do without: jobs only queue up.
        gpus: GPUs that a local Ray offers; None = the machine's.
        leads: whether this control plane leads: one that stands by starts no Ray.
    """

    def __init__(
        self, backend: RayBackend, state: Path, address: str, gpus: int | None, leads: Callable[[], bool]
    ) -> None:
        self._backend = backend
        self._state = state
        self.address = address
        self._gpus = gpus
        self._leads = leads
        self.local = False
        self.error = ""
        self.progress: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray-link", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        if self.address == NO_RAY:
            self.address = ""
            self._say("no Ray cluster, as asked: jobs queue up")
            return
        if self.address:
            self._say(f"connecting to Ray at {self.address}")
            self._backend.connect(self.address)
            return
        self._thread.start()

    def stop(self) -> None:
        """Try no more."""
        self._end.set()

    def view(self) -> JSON:
        """How it stands, for `status`."""
        state = self._backend.alive() if self.address else (self.progress[-1] if self.progress else "looking for Ray")
        return {
            "address": self.address,
            "state": self.error or state or "connected",
            "error": self.error,
            "links": self._backend.links(),
            "local": self.local,
        }

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                address = self._find()
                if not address:
                    self._end.wait(WATCH_RAY)
                    continue
            except GpuschedError as error:
                self.error = error.message
                self._say(f"no local Ray: {error.message.splitlines()[-1]}; trying again in {RETRY_RAY:.0f} s")
                self._end.wait(RETRY_RAY)
                continue
            self.error, self.address = "", address
            self._say(f"connecting to Ray at {address}")
            self._backend.connect(address)
            if not self.local:
                return
            while not self._end.wait(WATCH_RAY):
                if local.running(self._state) is None:
                    self._say("the local Ray has ended, and what ran on it: another one is started")
                    local.stop(self._state)  # its files
                    break

    def _find(self) -> str:
        """Address of the Ray that we started before, of one that runs, or of a new one; empty = we may start none."""
        ours = local.running(self._state)
        if ours is not None:
            self.local = True
            return ours.address
        found = local.find()
        if found is not None:
            self._say(f"found a Ray cluster at {found}")
            return found
        if not self._leads():
            self._say("standing by, without a Ray cluster")
            return ""
        self._say("starting a local Ray")
        self.local = True
        return local.start(self._state, gpus=self._gpus, say=self._say).address

    def _say(self, line: str) -> None:
        if self.progress[-1:] != [line]:
            self.progress.append(line)
            log.info("%s", line)


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop. The exit code: 0, or that of the error that kept it from running."""
    asked = _parse(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.Formatter.converter = time.gmtime
    logging.Formatter.default_msec_format = "%s.%03dZ"
    # A queue is a million small objects that live long: the collector's default would walk them over and over.
    gc.set_threshold(50_000, 20, 50)
    paths = Paths(Path(asked.home).absolute()) if asked.home else Paths.default()
    try:
        paths.make()
        with _only_one(paths):
            _serve(asked, paths)
    except OSError as error:
        sys.stderr.write(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
        return 1
    except GpuschedError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpusched control plane", description=__doc__)
    parser.add_argument("--home", default="", help="state directory")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0 = the one of last time, or any")
    parser.add_argument("--policy", default="", help="as `gpusched simulate --policy` takes it")
    parser.add_argument("--ray-address", default="", help=f"join this Ray cluster; `{NO_RAY}` = only queue")
    parser.add_argument("--gpus", type=int, default=None, help="GPUs of a local Ray")
    parser.add_argument("--tls-cert", default="", help="certificate to serve: PEM, its chain after it")
    parser.add_argument("--tls-key", default="", help="its key: PEM")
    parser.add_argument("--insecure", action="store_true", help="listen beyond loopback without TLS")
    parser.add_argument("--health", default="", help="limits of the health checks, such as disk=2GiB,skew=10s")
    # Not on the command line, where others could read its password.
    parser.set_defaults(database=os.environ.get("GPUSCHED_DATABASE_URL", ""))
    return parser.parse_args(arguments)


def _only_one(paths: Paths) -> TextIO:
    """Hold the directory's lock while the file is open: the kernel lets go of it however we end."""
    lock = paths.lock.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ConflictError(
            f"a control plane is running in {paths.root} already", hint="`gpusched down` stops it"
        ) from None
    return lock


def _policy(name: str, store: SqlStore) -> Policy:
    """The policy that was asked for at the start; else the one that a user chose last; else the default."""
    if name:
        return load(name)
    with store.reader() as connection:
        chosen = chosen_policy(connection)
    try:
        return load(chosen or DEFAULT)
    except NotFoundError as error:
        log.warning("%s: it was chosen before; %s decides", error, DEFAULT)
        return load(DEFAULT)


def _archivist(service: Service, policy: ArchivePolicy, paths: Paths) -> Archivist:
    """Who moves old history into files, where the settings say."""
    folder = Path(policy.folder).expanduser() if policy.folder else paths.archive
    service.archive, service.archiving = Archive(service.store, folder), policy
    controller = service.controller
    return Archivist(service.archive, policy, lambda: controller.figures.leader, controller.clock.now)


def _serve(asked: argparse.Namespace, paths: Paths) -> None:  # noqa: PLR0915 - what there is, put together in order
    stop = threading.Event()
    why = ""

    def ended(reason: str) -> None:
        nonlocal why
        why = reason
        stop.set()

    def told(number: int, _frame: FrameType | None) -> None:
        log.info("stopping: %s", signal.Signals(number).name)
        stop.set()

    before = read_state(paths)
    settings = read_settings(paths.root)
    keys = Keyring.find(paths.root, os.environ)
    os.environ.pop(KEY_VARIABLE, None)  # for this process alone, not for those that it starts
    store = SqlStore(asked.database or str(paths.database), keys=keys)
    policy = _policy(asked.policy, store)
    # Another control plane on this database must find what this one was given, and what it started.
    snapshots = SnapshotStore(paths.snapshots, shared=None if store.database.sqlite else SharedSnapshots(store))
    owner, clock = identity(paths.root), WallClock()
    backend = RayBackend(
        None,
        paths.root,
        snapshot=_snapshot_of(snapshots),
        on_news=lambda: controller.wake(),  # noqa: PLW0108 - it is made below
        health=parse_limits(asked.health, "--health"),
        owner=Lease(store, owner).identity(),
        term=lambda: controller.term,
        at=clock.at,
    )
    controller = Controller(
        store,
        backend,
        policy,
        clock=clock,
        owner=owner,
        chosen=None if asked.policy else lambda: _policy("", store),
        limits=settings.limits,
        poison=settings.poison,
        on_end=ended,
    )
    controller.door.forgive = backend.forgive
    service = Service(controller, store, snapshots, user=_user())
    ray = RayLink(backend, paths.root, asked.ray_address, asked.gpus, lambda: controller.figures.leader)
    server = _open(service, backend, asked, before, stop.set)
    _check_exposed(asked, server)
    controller.lease.url = _url_for_others(server)
    recorder = Recorder(store, backend.samples, snapshots, lambda: controller.figures.leader, controller.clock.now)
    archivist = _archivist(service, settings.archive, paths)
    service.facts = _facts(server.url, ray)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    controller.start()
    ray.start()
    recorder.start()
    archivist.start()
    server.start()
    state = {"url": server.url, "token": server.token, "version": __version__, "certificate": asked.tls_cert}
    write_state(paths, {**state, "pid": os.getpid(), "started": process_start(os.getpid())})
    gc.collect()
    gc.freeze()
    log.info("gpusched %s serves at %s, database %s", __version__, server.url, store.database.name)
    stop.wait()
    server.stop()
    recorder.stop()
    archivist.stop()
    ray.stop()
    controller.stop()
    backend.close()
    store.close()
    # Who comes next keeps address and token, so that clients need not learn new ones.
    write_state(paths, {**state, "pid": 0, "started": 0.0})
    log.info("stopped%s", f": {why}" if why else "; what runs on the cluster goes on")
    if why:
        raise GpuschedError(why)


def _open(
    service: Service, backend: RayBackend, asked: argparse.Namespace, before: JSON, shutdown: Callable[[], None]
) -> Server:
    """Listen at the port that was asked for, else where we listened last time, else anywhere."""
    token = os.environ.get("GPUSCHED_TOKEN", "")
    if not token or token.startswith(PREFIX):  # a token of the latter kind is a user's of some control plane
        token = str(before.get("token", ""))
    last = str(before.get("url", "")).rpartition(":")[2]
    ports = [asked.port] if asked.port else [*([int(last)] if last.isdigit() else []), DEFAULT_PORT, 0]
    tls = _certificate(asked)
    for port in ports:
        try:
            return Server(service, backend, host=asked.host, port=port, token=token, tls=tls, shutdown=shutdown)
        except GpuschedError:
            if port == ports[-1]:
                raise
    raise AssertionError("there is always one port to try")


def _url_for_others(server: Server) -> str:
    """Where clients elsewhere find this control plane while it leads."""
    if server.host not in {"0.0.0.0", "::", ""}:  # noqa: S104 - any address: the machine's name leads to one
        return server.url
    scheme = server.url.partition("://")[0]
    return f"{scheme}://{socket.getfqdn()}:{server.port}"


def _certificate(asked: argparse.Namespace) -> Served | None:
    if not asked.tls_cert and not asked.tls_key:
        return None
    if not asked.tls_cert or not asked.tls_key:
        raise GpuschedError("a certificate and its key go together", hint="give both --tls-cert and --tls-key")
    return Served(Path(asked.tls_cert), Path(asked.tls_key))


def _check_exposed(asked: argparse.Namespace, server: Server) -> None:
    """Tokens in clear text on a network are somebody's explicit wish, or none's."""
    if is_loopback(asked.host) or asked.tls_cert:
        return
    if not asked.insecure:
        server.stop()
        raise GpuschedError(
            f"listening at {asked.host} without TLS would send every token in clear text",
            hint="--tls-cert FILE --tls-key FILE, see docs/access.md; on a network that you trust --insecure",
        )
    log.warning(
        "%s is plain HTTP beyond this machine: tokens travel in clear text, who listens in can use them", server.url
    )


def _snapshot_of(snapshots: SnapshotStore) -> Callable[[Job], Path | None]:
    def find(job: Job) -> Path | None:
        name = "" if job.spec is None else job.spec.annotations.get(ANNOTATION, "")
        return snapshots.path(name) if name else None

    return find


def _facts(url: str, ray: RayLink) -> Callable[[], JSON]:
    started = time.time()

    def facts() -> JSON:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": iso(started),
            "uptime": round(time.time() - started, 1),
            "url": url,
            "ray": ray.view(),
            "progress": list(ray.progress),
        }

    return facts


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


if __name__ == "__main__":
    sys.exit(main())
