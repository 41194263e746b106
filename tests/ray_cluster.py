"""A real Ray cluster of several raylets on this machine; `ray_cluster` is the fixture."""

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

import pytest

SETTINGS = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RayCluster:
    """Raylets on loopback addresses of their own. `names` are what gpusched calls the nodes."""

    def __init__(self, folder):
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - only tests that ask for a cluster pay for Ray's import

        self.folder = folder
        self._cluster = Cluster(shutdown_at_exit=False)
        self._nodes = {}
        self.add("127.0.0.10", gpus=2, gcs_server_port=free_port())
        self.address = self._cluster.address

    @property
    def names(self):
        return tuple(self._nodes)

    def add(self, address, *, gpus, cpus=4, **more):
        self._nodes[address] = self._cluster.add_node(
            wait=True,
            node_ip_address=address,
            num_cpus=cpus,
            num_gpus=gpus,
            object_store_memory=80_000_000,
            include_dashboard=False,
            dashboard_agent_listen_port=0,
            **more,
        )

    def kill_raylet(self, address):
        """SIGKILL, as a machine that lost its power; the node's other processes follow by themselves."""
        node = self._nodes.pop(address)
        for process in node.all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)

    def stop(self):
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def ray_cluster():
    """Three nodes with two logical GPUs each: 127.0.0.10 (head), .11 and .12."""
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    before = {key: os.environ.get(key) for key in (*SETTINGS, "RAY_TMPDIR")}
    os.environ.update(SETTINGS, RAY_TMPDIR=str(folder))
    cluster = None
    try:
        cluster = RayCluster(folder)
        for address in ("127.0.0.11", "127.0.0.12"):
            cluster.add(address, gpus=2)
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        shutil.rmtree(folder, ignore_errors=True)
