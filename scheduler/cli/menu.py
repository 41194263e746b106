"""Every verb on one screen: where it lives and what it is for. A test holds the lines against the verbs' own help."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A verb: the module and the command in it, and its line in `gpusched --help`."""

    module: str
    command: str
    line: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Jobs": {
        "submit": Entry("submit", "submit", "Queue a job: a file of jobs, a script, or a command."),
        "run": Entry("run", "run", "Submit a job, follow its output, and exit with its code."),
        "ps": Entry("ps", "ps", "List jobs: those of yours that have not ended."),
        "describe": Entry("describe", "describe", "Show all that is known of a job."),
        "explain": Entry("explain", "explain", "Say why a job waits, until when, and what would help."),
        "logs": Entry("logs", "logs", "Print a job's output, while it runs or after."),
        "wait": Entry("wait", "wait", "Block until jobs have ended, or run."),
        "cancel": Entry("lifecycle", "cancel", "End jobs, or take them out of the queue."),
        "hold": Entry("lifecycle", "hold", "Keep waiting jobs from starting."),
        "release": Entry("lifecycle", "release", "Let held jobs wait in line again."),
        "requeue": Entry("lifecycle", "requeue", "Stop running jobs, with their grace, and queue them again."),
    },
    "Cluster": {
        "nodes": Entry("nodes", "nodes", "List the nodes: what is free, and who holds the rest; or all on one node."),
        "cordon": Entry("nodes", "cordon", "Give nodes no new work; what runs there goes on."),
        "drain": Entry("nodes", "drain", "Give nodes no new work, and have what runs there gone in time."),
        "resume": Entry("nodes", "resume", "Give cordoned and drained nodes work again."),
        "maintenance": Entry("maintenance", "maintenance", "Plan times in which nodes are not for jobs."),
        "queues": Entry("queues", "queues", "Configure the queues: quotas, borrowing, weights and limits."),
        "top": Entry("top", "top", "Watch nodes, GPUs and jobs: what is allocated and what is used."),
        "report": Entry("report", "report", "Sum up GPU-hours by user, queue, job or GPU type."),
    },
    "Simulation": {
        "simulate": Entry("simulate", "simulate", "Replay a trace under one policy or several, and compare them."),
        "trace": Entry("trace", "trace", "Generate, convert and look at traces."),
        "bound": Entry("bounds", "bound", "Compute what no schedule can beat, and verify its proof."),
        "bench": Entry("bench", "bench", "Repeat published experiments and print their figures."),
        "policy": Entry("policy", "policy", "Show, compare, test and choose policies."),
        "export": Entry("export", "export", "Write the live journal as a trace that `simulate` replays."),
    },
    "Control plane": {
        "up": Entry("plane", "up", "Start the control plane of this machine, or join a Ray cluster."),
        "down": Entry("plane", "down", "Stop the control plane of this machine and what it started."),
        "status": Entry("plane", "status", "Say how the control plane is."),
        "login": Entry("login", "login", "Keep a token for a control plane, and use that one from now on."),
        "logout": Entry("login", "logout", "Forget the token that `gpusched login` kept."),
        "whoami": Entry("login", "whoami", "Say who the control plane takes you for, and what you may do there."),
        "users": Entry("users", "users", "Let people in, and say what they may do."),
        "token": Entry("tokens", "token", "Make, list and revoke tokens."),
        "audit": Entry("audit", "audit", "List who asked for what change, and what came of it, the newest first."),
        "journal": Entry("journal", "journal", "The history that is archived in Parquet files."),
        "doctor": Entry("doctor", "doctor", "Check what cannot be seen: Ray's settings, GPUs, disk, clock."),
        "secrets": Entry("secrets", "secrets", "Look after the keys that seal the secrets of jobs."),
        "config": Entry("config", "config", "Show and check the configuration."),
    },
    "Other": {
        "schema": Entry("about", "schema", "Print the JSON schema of job files, for editors."),
        "completion": Entry("about", "completion", "Print the completion script of a shell."),
        "version": Entry("about", "version", "Print the version."),
    },
}

MENU: dict[str, Entry] = {name: entry for section in SECTIONS.values() for name, entry in section.items()}

ALIASES = {"queue": "ps", "ls": "ps", "why": "explain"}
