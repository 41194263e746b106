"""GPUs, as the driver tells them: a healthy one answers, and only jobs of the queue use it."""

from __future__ import annotations

import time
from importlib import metadata
from pathlib import Path

from ...cluster.ray.agent import GpuFigures, GpuProcess, NodeSampler
from .check import Check, fail, ok, skip, warn
from .machine import size
from .probe import Probe

NVIDIA = "0x10de"
DISPLAY = "0x03"


def gpus(probe: Probe) -> list[Check]:
    """NVML, each GPU, strangers on them, and a torch that can use them."""
    sample = NodeSampler("here").sample(time.time())
    found, why = sample["gpus"], sample["nvml"]
    if not found:
        return [_none(probe, why or "")]
    return [_driver(found, why), _strangers(found), *_torch(found)]


def _none(probe: Probe, why: str) -> Check:
    cards = _cards(probe.pci)
    if not cards and "not found" in why:
        return skip("nvml", "no NVIDIA GPU and no driver on this machine: jobs get the GPUs that Ray is told of")
    seen = f"{cards} NVIDIA GPUs on the PCI bus, but " if cards else ""
    mend = "install the NVIDIA driver of your distribution"
    if "mismatch" in why:
        mend = "the driver was updated under a running kernel module: reboot, or unload and load the nvidia modules"
    elif "not found" not in why:
        mend = "see `dmesg | grep -i nvrm`; load the driver (modprobe nvidia), or reboot"
    return fail(
        "nvml", f"{seen}{why}", why="Ray sees no GPU, and their use cannot be measured", fix=f"{mend}; try `nvidia-smi`"
    )


def _cards(pci: Path) -> int:
    """NVIDIA display controllers on the PCI bus, driver or not."""
    count = 0
    for device in pci.iterdir() if pci.is_dir() else ():
        try:
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text()
        except OSError:
            continue  # unplugged meanwhile
        count += vendor == NVIDIA and kind.startswith(DISPLAY)
    return count


def _driver(found: list[GpuFigures], why: str | None) -> Check:
    names = sorted({gpu["name"] or "not told" for gpu in found})
    version = _driver_version()
    text = f"{len(found)} GPUs ({', '.join(names)}){f', driver {version}' if version else ''}"
    if why is None:
        return ok("nvml", text)
    lost = [str(gpu["index"]) for gpu in found if gpu["utilization"] is None and gpu["memory_used"] is None]
    if lost:
        return fail(
            "nvml",
            f"{text}; {why}",
            why=f"jobs placed on GPU {', '.join(lost)} fail at their first CUDA call",
            fix="see `dmesg | grep -i xid`; drain the node, and reset it (nvidia-smi --gpu-reset -i N) or reboot",
        )
    return warn(
        "nvml",
        f"{text}; {why}",
        why="these figures stay empty in reports and on `top`",
        fix="nothing, if the GPU has no such sensor or is split by MIG; else see `nvidia-smi -q`",
    )


def _driver_version() -> str:
    import pynvml  # noqa: PLC0415 - it was there a moment ago: the sampler used it

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return ""


def _strangers(found: list[GpuFigures]) -> Check:
    strangers = [
        f"GPU {gpu['index']}: {_who(process)}"
        for gpu in found
        for process in gpu["processes"] or ()
        if process["foreign"] and process["type"] == "compute"
    ]
    if not strangers:
        return ok("gpu-processes", "no process on a GPU that is not a job's")
    return warn(
        "gpu-processes",
        "; ".join(strangers),
        why="they take memory and time from jobs that were promised the whole GPU",
        fix="ask their owners to submit to the queue, or end them; a leftover of a job that ended is ours: kill it",
    )


def _who(process: GpuProcess) -> str:
    memory = "" if process["memory"] is None else f", {size(process['memory'])}"
    return f"pid {process['pid']} ({process['name']}, user {process['user']}{memory})"


def _torch(found: list[GpuFigures]) -> list[Check]:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return []  # said by the check on Python
    if "+cpu" not in version:
        return []
    return [
        warn(
            "torch",
            f"torch {version}, and {len(found)} GPUs",
            why="this build of torch cannot use a GPU: jobs in this environment hold GPUs and train on CPUs",
            fix="pip install --force-reinstall torch, without the CPU index",
        )
    ]
