"""Each check of the doctor, made to fail by the real thing: a file, a process, a socket, a mount, a driver."""

import base64
import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from rich.console import Console

from gpusched.scheduler import migrations
from gpusched.scheduler.doctor import (
    Check,
    Port,
    Probe,
    Status,
    as_json,
    as_table,
    doctor_report,
    exit_code,
    machine,
    ray_settings,
    run_checks,
    state,
)

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB in memory."""
    point = tmp_path / "tiny"
    point.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point], check=False).returncode:
        pytest.skip("may not mount (needs root)")
    yield point
    subprocess.run(["umount", point], check=True)


StartRay = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_ray(tmp_path: Path, free_port: int) -> Iterator[StartRay]:
    """Real processes that are called raylet or gcs_server, of one cluster, with an environment and options."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str, *options: str, folder: Path = tmp_path, listen: str = "", **env: str) -> subprocess.Popen[str]:
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / kind
        if not program.exists():
            program.symlink_to(sys._base_executable)
        listening = f"import socket; s = socket.create_server(({listen!r}, 0)); print(s.getsockname()[1], end='')"
        code = f"import sys; {listening if listen else ''}\nprint(flush=True); sys.stdin.read()"
        cluster = f"--gcs_server_port={free_port}" if kind == "gcs_server" else f"--gcs-address=127.0.0.1:{free_port}"
        command = [str(program), "-I", "-S", "-c", code, cluster, *options]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={"PATH": os.environ["PATH"], **env})
        started.append(process)
        process.port = process.stdout.readline().strip()
        return process

    yield start
    for process in started:
        process.communicate("")


@pytest.fixture
def probe(folder: Path, free_port: int) -> Probe:
    return Probe(state_dir=folder, ray_address=f"127.0.0.1:{free_port}", ports=())


def mends(check: Check, status: Status) -> bool:
    """Whether it has this status, and says why it matters and what to do."""
    return check.status is status and bool(check.why) and bool(check.fix)


# ---- Ray -------------------------------------------------------------------------------------------------------------


def test_the_installed_ray_is_one_that_was_tried(probe):
    assert ray_settings.version(probe) == Check("ray-version", Status.OK, f"Ray {metadata.version('ray')}")


def test_a_cluster_of_another_ray_version_fails(probe, start_ray, tmp_path):
    package = tmp_path / "site-packages" / "ray"
    binaries = package / "core" / "src" / "ray" / "raylet"
    binaries.mkdir(parents=True)
    (package / "_version.py").write_text('commit = "c"\nversion = "2.9.3"\n')
    start_ray("raylet", folder=binaries)
    check = ray_settings.version(probe)
    assert mends(check, Status.FAIL)
    assert "Ray 2.9.3 runs" in check.found


def test_a_raylet_with_default_settings_cleans_up(probe, start_ray):
    start_ray("raylet")
    assert ray_settings.cleanup(probe).status is Status.OK


@pytest.mark.parametrize("setting", ["kill_child_processes_on_worker_exit", "process_group_cleanup_enabled"])
def test_a_raylet_that_leaves_children_of_its_workers_is_a_warning(probe, start_ray, setting):
    raylet = start_ray("raylet", **{f"RAY_{setting}": "false"})
    check = ray_settings.cleanup(probe)
    assert mends(check, Status.WARN)
    assert str(raylet.pid) in check.found
    assert setting in check.fix


def test_a_raylet_that_ends_what_it_does_not_know_fails(probe, start_ray):
    subreaper = "RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper"
    start_ray("raylet", **{subreaper: "true", "RAY_process_group_cleanup_enabled": "0"})
    check = ray_settings.cleanup(probe)
    assert mends(check, Status.FAIL)
    assert "running jobs are killed" in check.why


def test_a_deprecated_subreaper_setting_is_a_warning(probe, start_ray):
    start_ray("raylet", RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper="1")
    assert "ignores" in ray_settings.cleanup(probe).found


def test_rays_default_health_checks_notice_a_lost_node_late(probe, start_ray):
    start_ray("gcs_server")
    check = ray_settings.health(probe)
    assert mends(check, Status.WARN)
    assert "crashed node is noticed after about 15 s, one cut off after 65 s" in check.found


def test_health_checks_as_the_fix_says_are_well(probe, start_ray):
    start_ray("gcs_server", **dict(pair.split("=") for pair in ray_settings.TUNED.split()))
    check = ray_settings.health(probe)
    assert check.status is Status.OK
    assert "after about 3 s, one cut off after 6 s" in check.found


def test_hasty_health_checks_are_a_warning_and_system_config_wins_over_the_environment(probe, start_ray):
    config = {"health_check_period_ms": 200, "health_check_timeout_ms": 100, "health_check_failure_threshold": 2}
    encoded = base64.b64encode(json.dumps(config).encode()).decode()
    start_ray("gcs_server", f"--config_list={encoded}", RAY_health_check_period_ms="3000")
    check = ray_settings.health(probe)
    assert mends(check, Status.WARN)
    assert "busy for a moment" in check.why


def test_raylets_that_share_a_machine_and_its_memory_monitor_are_a_warning(probe, start_ray):
    start_ray("raylet")
    assert ray_settings.memory_monitor(probe).status is Status.OK
    start_ray("raylet")
    again = Probe(state_dir=probe.state_dir, ray_address=probe.ray_address)
    assert mends(ray_settings.memory_monitor(again), Status.WARN)


def test_raylets_that_leave_the_memory_alone_may_share_a_machine(probe, start_ray):
    for _ in range(2):
        start_ray("raylet", RAY_memory_monitor_refresh_ms="0")
    assert ray_settings.memory_monitor(probe).status is Status.OK


@pytest.mark.parametrize(
    ("listen", "env", "status"),
    [
        ("0.0.0.0", {}, Status.WARN),  # noqa: S104 - the fault that is looked for
        ("0.0.0.0", {"RAY_AUTH_MODE": "token"}, Status.OK),  # noqa: S104 - the same
        ("0.0.0.0", {"RAY_USE_TLS": "1"}, Status.OK),  # noqa: S104 - the same
        ("127.0.0.1", {}, Status.OK),
    ],
)
def test_a_cluster_open_to_the_network_without_a_token_is_a_warning(probe, start_ray, listen, env, status):
    start_ray("gcs_server", listen=listen, **env)
    check = ray_settings.access(probe)
    assert check.status is status
    assert ("RAY_AUTH_MODE=token" in check.fix) is (status is Status.WARN)


def test_without_ray_processes_its_settings_are_not_judged(probe):
    probe.__dict__["ray_processes"] = []  # whatever else runs on this machine
    checks = [check(probe) for check in (ray_settings.cleanup, ray_settings.health, ray_settings.access)]
    assert {check.status for check in checks} == {Status.SKIP}


def test_an_address_that_does_not_answer_fails_at_once(probe):
    check = ray_settings.address(probe)
    assert mends(check, Status.FAIL)
    assert probe.ray_address in check.found


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:port", "127.0.0.1:99999"])
def test_an_address_that_is_none_fails(folder, address):
    assert mends(ray_settings.address(Probe(state_dir=folder, ray_address=address)), Status.FAIL)


def test_an_address_that_answers_is_well(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        assert ray_settings.address(Probe(state_dir=folder, ray_address=here)).status is Status.OK
    assert ray_settings.address(Probe(state_dir=folder)).status is Status.SKIP


def test_a_port_that_another_program_holds_is_a_warning_that_names_it(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        (check,) = ray_settings.ports(Probe(state_dir=folder, ports=(Port("the page", number, ("gpusched-page",)),)))
    assert mends(check, Status.WARN)
    assert f"(pid {os.getpid()})" in check.found


def test_a_port_that_its_own_program_holds_is_well(folder, start_ray, free_port):
    gcs = start_ray("gcs_server", listen="127.0.0.1")
    held = Port("Ray's GCS", int(gcs.port), ("gcs_server",))
    free = Port("Ray's dashboard", free_port, ("dashboard",))
    first, second = ray_settings.ports(Probe(state_dir=folder, ports=(held, free)))
    assert first.status is second.status is Status.OK
    assert f"(pid {gcs.pid})" in first.found
    assert second.found.endswith("free")


def test_a_temp_directory_too_long_for_sockets_fails(folder, tmp_path):
    (check,) = ray_settings.leftovers(Probe(state_dir=folder, ray_temp=tmp_path / ("long" * 20)))
    assert mends(check, Status.FAIL)
    assert "RAY_TMPDIR" in check.fix


def test_a_temp_directory_that_we_may_not_write_to_fails(folder, read_only):
    (check,) = ray_settings.leftovers(Probe(state_dir=folder, ray_temp=read_only))
    assert mends(check, Status.FAIL)
    assert "RAY_TMPDIR to a folder of your own" in check.fix


def test_the_temp_directory_is_that_of_the_raylet_that_runs(probe, start_ray, tmp_path):
    start_ray("raylet", f"--temp_dir={tmp_path}")
    assert probe.ray_folder == tmp_path


def test_the_address_of_a_cluster_that_is_gone_is_a_warning(folder, short_temp, free_port):
    (short_temp / "ray_current_cluster").write_text(f"127.0.0.1:{free_port}")
    (check,) = ray_settings.leftovers(Probe(state_dir=folder, ray_temp=short_temp))
    assert mends(check, Status.WARN)
    assert str(short_temp / "ray_current_cluster") in check.fix


def test_the_address_of_a_cluster_that_runs_is_well(folder, short_temp):
    with socket.create_server(("127.0.0.1", 0)) as server:
        (short_temp / "ray_current_cluster").write_text(f"127.0.0.1:{server.getsockname()[1]}")
        (check,) = ray_settings.leftovers(Probe(state_dir=folder, ray_temp=short_temp))
    assert check.status is Status.OK


@pytest.fixture
def short_temp() -> Iterator[Path]:
    # pytest's own folders are too long for Ray's sockets.
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def read_only(short_temp: Path) -> Iterator[Path]:
    """A folder that nobody may write to, root neither."""
    if os.geteuid():
        short_temp.chmod(0o500)
        yield short_temp
        short_temp.chmod(0o700)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", short_temp], check=False).returncode:
        pytest.skip("may not mount")
    yield short_temp
    subprocess.run(["umount", short_temp], check=True)


# ---- GPUs ------------------------------------------------------------------------------------------------------------

LOOK = """
import json, sys
from pathlib import Path
from gpusched.scheduler.doctor import Probe, as_json, gpus
print(json.dumps(as_json(gpus.gpus(Probe(state_dir=Path("."), pci=Path(sys.argv[1]))))))
"""


def look_at_gpus(tmp_path: Path, environment: dict[str, str]) -> dict[str, Check]:
    """The checks on GPUs, in a process that finds this NVML."""
    (tmp_path / "pci").mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".src"), **environment}
    command = [sys.executable, "-c", LOOK, str(tmp_path / "pci")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    checks = [Check(**{**each, "status": Status(each["status"])}) for each in json.loads(done.stdout)]
    return {check.name: check for check in checks}


def test_gpus_that_answer_are_well_and_named_with_their_driver(tmp_path, fake_nvml):
    fake_nvml.show([{"name": "NVIDIA H100"}] * 2, driver="570.1")
    checks = look_at_gpus(tmp_path, fake_nvml.environment)
    assert checks["nvml"] == Check("nvml", Status.OK, "2 GPUs (NVIDIA H100), driver 570.1")
    assert checks["gpu-processes"].status is Status.OK


def test_a_machine_without_gpu_and_driver_is_no_fault(tmp_path):
    assert look_at_gpus(tmp_path, {})["nvml"].status is Status.SKIP


def test_a_gpu_without_a_driver_fails(tmp_path):
    card = tmp_path / "pci" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030200\n")
    check = look_at_gpus(tmp_path, {})["nvml"]
    assert mends(check, Status.FAIL)
    assert check.found.startswith("1 NVIDIA GPUs on the PCI bus, but ")


@pytest.mark.parametrize(("code", "mend"), [(18, "updated under a running kernel module"), (9, "modprobe nvidia")])
def test_a_driver_that_does_not_open_fails_with_its_own_mend(tmp_path, fake_nvml, code, mend):
    fake_nvml.show(1, init=code)
    check = look_at_gpus(tmp_path, fake_nvml.environment)["nvml"]
    assert mends(check, Status.FAIL)
    assert mend in check.fix


def test_a_lost_gpu_fails_and_a_missing_sensor_is_only_a_warning(tmp_path, fake_nvml):
    fake_nvml.show([{}, {"fail": {"all": 15}}])
    lost = look_at_gpus(tmp_path, fake_nvml.environment)["nvml"]
    assert mends(lost, Status.FAIL)
    assert "jobs placed on GPU 1" in lost.why
    fake_nvml.show([{"fail": {"power": 3}}])
    assert mends(look_at_gpus(tmp_path, fake_nvml.environment)["nvml"], Status.WARN)


def test_a_strangers_process_on_a_gpu_is_a_warning_that_names_it(tmp_path, fake_nvml):
    with subprocess.Popen(["sleep", "100"]) as stranger:
        fake_nvml.show([{}, {"compute": [(stranger.pid, 3 * GIB)]}])
        check = look_at_gpus(tmp_path, fake_nvml.environment)["gpu-processes"]
        stranger.kill()
    assert mends(check, Status.WARN)
    assert f"GPU 1: pid {stranger.pid} (sleep, user " in check.found
    assert "3.0 GiB" in check.found


def test_a_torch_without_cuda_beside_gpus_is_a_warning(tmp_path, fake_nvml):
    cpu_only = "+cpu" in metadata.version("torch")
    assert ("torch" in look_at_gpus(tmp_path, fake_nvml.environment)) is cpu_only


# ---- state -----------------------------------------------------------------------------------------------------------


def test_a_state_folder_that_only_we_can_read_is_well(probe):
    assert state.folder(probe).status is Status.OK


def test_a_state_folder_that_others_can_read_is_a_warning(probe):
    probe.state_dir.chmod(0o755)
    check = state.folder(probe)
    assert mends(check, Status.WARN)
    assert check.fix == f"chmod 700 {probe.state_dir}"


def test_a_state_folder_that_is_a_file_fails(tmp_path):
    (tmp_path / "file").touch()
    assert mends(state.folder(Probe(state_dir=tmp_path / "file")), Status.FAIL)


def test_a_state_folder_that_can_be_made_is_well_and_one_that_cannot_fails(tmp_path, read_only):
    assert state.folder(Probe(state_dir=tmp_path / "a" / "b")).status is Status.OK
    assert mends(state.folder(Probe(state_dir=read_only / "a" / "b")), Status.FAIL)


def test_a_state_folder_that_we_may_not_write_to_fails(read_only):
    check = state.folder(Probe(state_dir=read_only))
    assert mends(check, Status.FAIL)
    assert "not ours to write to" in check.found


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs"])
def test_a_network_file_system_fails_unless_the_database_is_elsewhere(tmp_path, kind):
    folder = tmp_path / "with space"
    folder.mkdir()
    mounts = tmp_path / "mountinfo"
    point = str(folder).replace(" ", "\\040")
    mounts.write_text(
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        f"90 22 0:52 / {point} rw,relatime shared:9 master:2 - {kind} server:/home rw,vers=4.2\n"
    )
    check = state.file_system(Probe(state_dir=folder / "state", mounts=mounts))
    assert mends(check, Status.FAIL)
    assert "PostgreSQL" in check.fix
    assert state.file_system(Probe(state_dir=tmp_path, mounts=mounts)).found.endswith("is on ext4")
    elsewhere = Probe(state_dir=folder, mounts=mounts, database_url="postgresql://db/gpusched")
    assert state.file_system(elsewhere).status is Status.OK


def test_a_file_system_in_memory_is_a_warning(tiny):
    check = state.file_system(Probe(state_dir=tiny / "state"))
    assert mends(check, Status.WARN)
    assert "tmpfs" in check.found


def make_database(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_database_of_this_schema_is_well_and_stays_as_it_is(probe):
    head = ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head()
    path = probe.state_dir / "gpusched.db"
    make_database(
        path, "CREATE TABLE alembic_version (version_num TEXT)", f"INSERT INTO alembic_version SELECT '{head}'"
    )
    before = path.read_bytes()
    assert state.database(probe) == Check("database", Status.OK, f"{path}, schema {head}")
    assert path.read_bytes() == before


def test_a_database_that_is_not_there_yet_is_well_and_is_not_made(probe):
    assert state.database(probe).status is Status.OK
    assert list(probe.state_dir.iterdir()) == []


def test_a_database_of_a_newer_release_fails(probe):
    statements = "CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('9999')"
    make_database(probe.state_dir / "gpusched.db", *statements)
    check = state.database(probe)
    assert mends(check, Status.FAIL)
    assert "schema 9999" in check.found


def test_a_database_of_another_program_fails(probe):
    make_database(probe.state_dir / "gpusched.db", "CREATE TABLE invoices (id INTEGER)")
    check = state.database(probe)
    assert mends(check, Status.FAIL)
    assert "invoices" in check.found


def test_a_file_that_is_no_database_fails(probe):
    (probe.state_dir / "gpusched.db").write_text("my notes, which are long enough for a header " * 10)
    assert mends(state.database(probe), Status.FAIL)


def test_a_database_that_another_program_locks_fails_with_words_that_say_so(probe):
    path = probe.state_dir / "gpusched.db"
    make_database(path, "CREATE TABLE alembic_version (version_num TEXT)")
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    check = state.database(probe)
    holder.close()
    assert mends(check, Status.FAIL)
    assert "locked" in check.found


def test_a_database_server_that_does_not_answer_fails_without_its_password(folder, free_port):
    url = f"postgresql://scott:tiger@127.0.0.1:{free_port}/jobs"
    check = state.database(Probe(state_dir=folder, database_url=url))
    assert mends(check, Status.FAIL)
    assert "does not answer" in check.found
    assert "tiger" not in check.found + check.why + check.fix


@pytest.mark.parametrize("url", ["mysql://host/jobs", "sqlite://"])
def test_a_database_that_we_cannot_use_fails(folder, url):
    assert mends(state.database(Probe(state_dir=folder, database_url=url)), Status.FAIL)


# ---- the machine -----------------------------------------------------------------------------------------------------


def test_a_full_disk_fails(tiny):
    checks = machine.disks(Probe(state_dir=tiny / "state", ray_temp=tiny / "ray"))
    assert [check.name for check in checks] == ["disk-state", "disk-ray"]
    assert all(mends(check, Status.FAIL) for check in checks)
    assert all("1 MiB" in check.found for check in checks)


def test_little_shared_memory_is_a_warning(folder, tiny):
    check = machine.shared_memory(Probe(state_dir=folder, shm=tiny))
    assert mends(check, Status.WARN)
    assert "1 MiB" in check.found


def test_few_open_files_are_a_warning():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))\n"
        "from pathlib import Path; from gpusched.scheduler.doctor import Probe, machine\n"
        "check = machine.open_files(Probe(state_dir=Path('.')))\nprint(check.status, check.found)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "warn 256 open files, at most 1024\n"


@pytest.mark.parametrize(
    ("own", "limit_file", "use_file"),
    [
        ("0::/jobs/mine\n", "jobs/memory.max", "jobs/memory.current"),
        (
            "4:cpu,memory:/jobs/mine\n0::/\n",
            "memory/jobs/memory.limit_in_bytes",
            "memory/jobs/memory.usage_in_bytes",
        ),
    ],
)
def test_a_tight_memory_limit_of_a_group_above_ours_is_a_warning(tmp_path, own, limit_file, use_file):
    (tmp_path / "own").write_text(own)
    (tmp_path / limit_file).parent.mkdir(parents=True)
    (tmp_path / limit_file).write_text(f"{GIB}\n")
    (tmp_path / use_file).write_text(f"{GIB // 2}\n")
    check = machine.memory_limit(Probe(state_dir=tmp_path, cgroups=tmp_path, own_cgroup=tmp_path / "own"))
    assert mends(check, Status.WARN)
    assert check.found.startswith("limited to 1.0 GiB of ")
    assert check.found.endswith("512 MiB in use")


def test_no_memory_limit_is_well(tmp_path):
    (tmp_path / "own").write_text("0::/mine\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "memory.max").write_text("max\n")
    check = machine.memory_limit(Probe(state_dir=tmp_path, cgroups=tmp_path, own_cgroup=tmp_path / "own"))
    assert check.status is Status.OK


def test_the_kernel_tells_the_state_of_its_clock():
    known = machine.clock_state()
    assert known is not None
    synchronized, error = known
    assert isinstance(synchronized, bool)
    assert error >= 0


def test_an_unsynchronized_clock_is_a_warning_and_a_synchronized_one_well(probe):
    assert mends(machine.clock(probe, (False, 16.0)), Status.WARN)
    assert machine.clock(probe, (True, 0.002)).status is Status.OK


@pytest.mark.parametrize(("skew", "status"), [(0.2, Status.OK), (-4.0, Status.WARN), (90.0, Status.FAIL)])
def test_a_node_whose_clock_is_off_is_named(folder, skew, status):
    check = machine.clock(Probe(state_dir=folder, skews={"n1": 0.0, "n2": skew}), (True, 0.001))
    assert check.status is status
    assert ("n2" in check.found) is (status is not Status.OK)


def test_python_and_torch_are_told(probe):
    found = machine.python(probe).found
    assert ".".join(map(str, sys.version_info[:3])) in found
    assert metadata.version("torch") in found


# ---- the report ------------------------------------------------------------------------------------------------------


def test_a_check_that_breaks_is_told_and_the_others_go_on(probe):
    def broken(_probe: Probe) -> Check:
        raise OSError(5, "Input/output error")

    first, second = run_checks(probe, [broken, state.folder])
    assert mends(first, Status.WARN)
    assert "Input/output error" in first.found
    assert second.status is Status.OK


def test_the_report_has_every_check_and_mends_every_fault(folder):
    checks = doctor_report(folder)
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    wanted = {"python", "ray-version", "ray-cleanup", "ray-health", "ray-access", "ray-temp", "port-6379", "nvml"}
    wanted |= {"state-dir", "state-file-system", "database", "disk-state", "disk-ray", "clock", "open-files"}
    wanted |= {"shared-memory", "memory-limit", "ray-address", "ray-memory-monitor"}
    assert wanted <= set(names)
    assert not [check for check in checks if "could not be checked" in check.found]


def test_only_failures_make_the_exit_code():
    warning = Check("a", Status.WARN, "found", "why", "fix")
    failure = Check("b", Status.FAIL, "found", "why", "fix")
    assert [exit_code([]), exit_code([warning]), exit_code([warning, failure])] == [0, 0, 1]


def test_the_table_shows_faults_first_and_as_they_are():
    checks = [Check("fine", Status.OK, "all"), Check("bad", Status.FAIL, "found [0]", "because", "do [this]")]
    text = io.StringIO()
    Console(file=text, width=100).print(as_table(checks))
    lines = text.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["CHECK", "bad", "why:", "fix:", "fine"]
    assert "found [0]" in lines[1]
    assert "do [this]" in lines[3]
    assert as_json(checks)[0] == {"name": "fine", "status": "ok", "found": "all", "why": "", "fix": ""}


def test_the_doctor_imports_neither_ray_nor_torch():
    code = (
        "import sys; from pathlib import Path; from gpusched.scheduler.doctor import doctor_report\n"
        "doctor_report(Path('/nowhere')); print([m for m in ('ray', 'torch') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
