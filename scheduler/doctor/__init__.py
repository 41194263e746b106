"""`gpusched doctor`: what the user cannot see, why it matters and how to mend it.

Looks at this machine alone, changes nothing, and imports neither Ray nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import gpus, machine, ray_settings, state
from .check import Check, Status, as_json, as_table, exit_code, warn
from .probe import RAY_PORTS, Port, Probe

__all__ = ["Check", "Port", "Probe", "Status", "as_json", "as_table", "doctor_report", "exit_code", "run_checks"]

CHECKS: tuple[Callable[[Probe], Check | list[Check]], ...] = (
    machine.python,
    ray_settings.version,
    ray_settings.address,
    ray_settings.cleanup,
    ray_settings.health,
    ray_settings.memory_monitor,
    ray_settings.access,
    ray_settings.leftovers,
    ray_settings.ports,
    gpus.gpus,
    state.folder,
    state.file_system,
    state.database,
    machine.disks,
    machine.clock,
    machine.open_files,
    machine.shared_memory,
    machine.memory_limit,
)


def run_checks(probe: Probe, checks: Sequence[Callable[[Probe], Check | list[Check]]] = CHECKS) -> list[Check]:
    """Every check, in order. One that cannot look says so, and the others go on."""
    results: list[Check] = []
    for check in checks:
        try:
            result = check(probe)
        except Exception as error:  # noqa: BLE001 - a machine in trouble is what this is for
            result = warn(
                check.__name__.replace("_", "-"),
                f"could not be checked: {type(error).__name__}: {error}",
                why="what it would have found is not known",
                fix="look at it by hand, and report this as a fault of gpusched",
            )
        results += result if isinstance(result, list) else [result]
    return results


def doctor_report(
    state_dir: Path,
    ray_address: str = "",
    database_url: str = "",
    *,
    ports: Sequence[Port] = (),
    skews: Mapping[str, float] | None = None,
) -> list[Check]:
    """All checks of this machine as the control plane is configured.

    Args:
        state_dir: the control plane's folder.
        ray_address: `HOST:PORT` of the cluster to join; empty = a local one.
        database_url: empty = SQLite in the state folder.
        ports: further ports to look at, such as the control plane's own.
        skews: seconds by which each node's clock is ahead of ours.
    """
    return run_checks(
        Probe(
            state_dir=state_dir,
            ray_address=ray_address,
            database_url=database_url,
            # A cluster that is joined has its ports elsewhere.
            ports=(*ports, *(() if ray_address else RAY_PORTS)),
            skews=skews or {},
        )
    )
