"""What each rank of a gang is told at its start: its place among the others, in torchrun's variables and our own."""

from __future__ import annotations

import json
import time
from typing import Any

TRAIN_MODULE = "gpusched_train"
"""Name under which ranks find `train_callback`."""
JOB_MODULE = "gpusched_job"
"""Name under which ranks find the SDK (jobs/sdk.py) where gpusched is not installed."""
TRAIN_CALLBACK = f"{TRAIN_MODULE}.ReservedGang"


def orders(request: dict[str, Any], facts: list[dict[str, Any]], ray_address: str, group: str) -> list[dict[str, Any]]:
    """One order for each Runner, in rank order.

    Each piece of a gang is a node of its own to its processes, also when two of them share a machine: it sees its own
    GPUs only, from index 0 on, so its LOCAL_RANK is 0. `torchrun` overrides these variables for its workers.

    Args:
        request: the start request, see `backend.start_request`.
        facts: what the Runners described, in rank order.
        ray_address: of the cluster, for scripts that are Ray drivers.
        group: id of the placement group in hex, for `train_callback`.

    Returns:
        For each rank `setup`, `run`, `grace`, `signal`, `patterns` and `env`.
    """
    first = facts[0]
    now = time.time()
    shared = {
        "WORLD_SIZE": str(len(facts)),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": first["address"],
        "MASTER_PORT": str(first["port"]),
        "RAY_ADDRESS": ray_address,
        "GPUSCHED_NUM_NODES": str(len(facts)),
        "GPUSCHED_NODE_IPS": "\n".join(fact["address"] for fact in facts),
        "GPUSCHED_NUM_GPUS": f"{sum(bundle.get('GPU', 0) for bundle in request['bundles']):g}",
        "GPUSCHED_PLACEMENT_GROUP": group,
        # Names of those that the workers of a Ray Train script get too.
        "GPUSCHED_VARIABLES": ",".join(request["env"]),
        "RAY_TRAIN_CALLBACKS": ",".join(filter(None, (request["env"].get("RAY_TRAIN_CALLBACKS"), TRAIN_CALLBACK))),
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": {"gpusched_job": str(request["job"])}}),
    }
    if request.get("max_duration"):
        shared["GPUSCHED_END_TIME"] = str(int(now + request["max_duration"]))
    return [
        {
            "setup": request["setup"],
            "run": request["run"],
            "grace": request["grace"],
            "signal": request["signal"],
            "patterns": request.get("patterns", []),
            "env": {
                "OMP_NUM_THREADS": str(threads(bundle)),
                **({"GLOO_SOCKET_IFNAME": fact["gloo_interface"]} if fact["gloo_interface"] else {}),
                **request["env"],
                **shared,
                "RANK": str(rank),
                "NODE_RANK": str(rank),
                "GPUSCHED_NODE_RANK": str(rank),
                "GPUSCHED_NODE": request["nodes"][rank],
                "GPUSCHED_GPUS_PER_NODE": f"{bundle.get('GPU', 0):g}",
                "CUDA_VISIBLE_DEVICES": ",".join(fact["gpus"]),
            },
        }
        for rank, (fact, bundle) in enumerate(zip(facts, request["bundles"], strict=True))
    ]


def threads(bundle: dict[str, float]) -> int:
    """OpenMP threads of each process: the piece's CPUs, shared by one process a GPU."""
    return max(1, int(bundle.get("CPU", 0) / max(1, bundle.get("GPU", 0))))
