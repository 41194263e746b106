"""Where the doctor looks. All that it reads has a name here, so that a test can point it at another file or port."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Port:
    """A port that something of ours listens on, and by which words in a command line its rightful holder is known."""

    use: str
    number: int
    holders: tuple[str, ...]
    host: str = "127.0.0.1"


RAY_PORTS = (Port("Ray's GCS", 6379, ("gcs_server",)), Port("Ray's dashboard", 8265, ("dashboard",)))


@dataclass(frozen=True, slots=True)
class RayProcess:
    """A raylet or a GCS server that runs here.

    Attributes:
        pid: its process.
        kind: raylet or gcs_server.
        environment: what it was started with; None when it is another user's.
        options: its `--key=value` arguments, dashes as underscores.
        version: of the Ray that it was started from; empty when not known.
        listens: addresses that it listens on; None when that cannot be seen.
    """

    pid: int
    kind: str
    environment: Mapping[str, str] | None
    options: Mapping[str, str]
    version: str = ""
    listens: frozenset[str] | None = None

    def setting(self, name: str, default: str) -> str:
        """One of Ray's own settings, as this process has it: `_system_config` wins over RAY_<name>."""
        given = _system_config(self.options.get("config_list", ""))
        if name in given:
            return str(given[name])
        return (self.environment or {}).get(f"RAY_{name}", default)

    def enabled(self, name: str, *, default: bool) -> bool:
        """The same, for a switch."""
        return self.setting(name, str(default)).lower() in {"1", "true"}


@dataclass(frozen=True)
class Probe:
    """This machine, as far as the doctor cares.

    Attributes:
        state_dir: the control plane's folder.
        ray_address: `ip:port` of the cluster; empty = a local one is found or started.
        database_url: as configured; empty = SQLite in the state folder.
        environment: of the process that would start Ray.
        ports: what must be free, or held by who should hold it.
        skews: seconds by which each node's clock is ahead of this one's, where samples came in.
        ray_temp, shm, mounts, cgroups, own_cgroup, pci: paths of the system, given by tests alone.
    """

    state_dir: Path
    ray_address: str = ""
    database_url: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    ports: tuple[Port, ...] = RAY_PORTS
    skews: Mapping[str, float] = field(default_factory=dict)
    ray_temp: Path | None = None
    shm: Path = Path("/dev/shm")  # noqa: S108 - shared memory is what is looked at
    mounts: Path = Path("/proc/self/mountinfo")
    cgroups: Path = Path("/sys/fs/cgroup")
    own_cgroup: Path = Path("/proc/self/cgroup")
    pci: Path = Path("/sys/bus/pci/devices")

    @property
    def ray_folder(self) -> Path:
        """Ray's temp directory: of a raylet that runs, else where Ray itself would make it."""
        if self.ray_temp is not None:
            return self.ray_temp
        for ray in self.ray_processes:
            if "temp_dir" in ray.options:
                return Path(ray.options["temp_dir"])
        return Path(self.environment.get("RAY_TMPDIR") or self.environment.get("TMPDIR") or "/tmp") / "ray"  # noqa: S108 - Ray's

    @cached_property
    def ray_processes(self) -> list[RayProcess]:
        """The raylets and GCS servers on this machine; of the cluster at `ray_address`, if any of it is here."""
        found = [ray for process in psutil.process_iter(["name"]) if (ray := _ray_process(process)) is not None]
        if not self.ray_address:
            return found
        port = self.ray_address.rpartition(":")[2]
        ours = [
            ray
            for ray in found
            if self.ray_address == ray.options.get("gcs_address") or port == ray.options.get("gcs_server_port")
        ]
        return ours or found

    def existing(self, path: Path) -> Path:
        """The path, or the nearest folder above it that exists."""
        path = path.absolute()
        while not path.exists():
            path = path.parent
        return path


def _ray_process(process: psutil.Process) -> RayProcess | None:
    kind = process.info["name"]
    if kind not in {"raylet", "gcs_server"}:
        return None
    try:
        arguments = process.cmdline()
    except psutil.Error:
        return None  # it ended meanwhile
    try:
        environment: Mapping[str, str] | None = process.environ()
    except psutil.Error:
        environment = None
    try:
        listens = frozenset(c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
    except psutil.Error:
        listens = None
    options = {}
    for argument in arguments[1:]:
        key, _, value = argument.removeprefix("--").partition("=")
        options[key.replace("-", "_")] = value
    version = _version_beside(Path(arguments[0])) if arguments else ""
    return RayProcess(process.pid, kind, environment, options, version, listens)


def _version_beside(executable: Path) -> str:
    """The version of the installation that an executable below ray/core/src is part of; it is text in a file there."""
    for folder in executable.parents:
        if folder.name == "ray" and (folder / "_version.py").is_file():
            for line in (folder / "_version.py").read_text().splitlines():
                key, _, value = line.partition("=")
                if key.strip() == "version":
                    return value.strip().strip("\"'")
    return ""


def _system_config(encoded: str) -> dict[str, object]:
    try:
        given = json.loads(base64.b64decode(encoded)) if encoded else {}
    except (binascii.Error, ValueError):
        return {}
    return given if isinstance(given, dict) else {}
