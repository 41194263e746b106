"""What the command line is configured with: flag > GPUSCHED_* > project file > user file > system file > default.

Files are YAML of a few plain keys, those of `KEYS`. The project's is the first `.gpusched.yaml` from the current folder
upwards, the user's `$XDG_CONFIG_HOME/gpusched/config.yaml`, the system's `/etc/gpusched/config.yaml`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..jobs.errors import Problem, SpecError

if TYPE_CHECKING:
    from ..jobs.yaml_marks import Node

PROJECT_FILE = ".gpusched.yaml"
SYSTEM_FILE = Path("/etc/gpusched/config.yaml")
FORMATS = ("table", "wide", "json", "jsonl", "yaml", "csv", "name")
"""What `-o` takes."""

YES = frozenset({"yes", "true", "1"})
"""What a setting of yes or no may say for yes."""
URL_VARIABLE = "GPUSCHED_URL"
"""Another name of GPUSCHED_ADDRESS."""

MOST_PROBLEMS = 100
"""Problems that are told; who mends these sees the next."""

DEFAULT = "default"
"""The origin of a value that nobody gave."""


def _urls(text: str) -> str:
    return next(filter(None, map(_url, text.split(","))), "")


def _url(text: str) -> str:
    scheme, slashes, rest = text.partition("://")
    if slashes and (scheme not in {"http", "https"} or not rest):
        return "write it like http://HOST:PORT"
    host, _, port = (rest if slashes else text).rstrip("/").rpartition(":")
    if not slashes and not (host and port.isdigit()):
        return "write it like http://HOST:PORT"
    return ""


def _format(text: str) -> str:
    return "" if text in FORMATS else f"one of {', '.join(FORMATS)}"


def _port(text: str) -> str:
    return "" if text.isascii() and text.isdigit() and 0 < int(text) <= 65535 else "a number from 1 to 65535"  # noqa: PLR2004 - the highest port


def _count(text: str) -> str:
    return "" if text.isascii() and text.isdigit() and int(text) <= 10_000 else "a whole number, 0 or more"  # noqa: PLR2004 - beyond any machine


def _health(text: str) -> str:
    from ..cluster.health import parse_limits  # noqa: PLC0415 - most commands never need it

    try:
        parse_limits(text)
    except SpecError as error:
        return str(error)
    return ""


def _yes_no(text: str) -> str:
    return "" if text.lower() in {*YES, "no", "false", "0"} else "yes or no"


def _any(_text: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Key:
    """A setting.

    Attributes:
        meaning: one line for people.
        default: its value where nobody gives one.
        fault: what is wrong with a text as its value, as a hint; empty = nothing.
        secret: never shown.
    """

    meaning: str
    default: str = ""
    fault: Callable[[str], str] = _any
    secret: bool = False


KEYS: dict[str, Key] = {
    "address": Key(
        "URL of the control plane; several with commas where one stands by for the other;"
        " empty = the one of this machine, started when it is needed",
        fault=_urls,
    ),
    "token": Key("what a control plane elsewhere knows you by", secret=True),
    "ca": Key("file of the authority that signed its certificate; empty = those that the system trusts"),
    "user": Key("whose jobs yours are; empty = your login name"),
    "queue": Key("queue of jobs that name none", "default"),
    "output": Key("form of what is printed", "table", _format),
    "home": Key("folder in which the control plane of this machine keeps its state"),
    "policy": Key("policy of a control plane that is started, and of `simulate`"),
    "ray_address": Key("Ray cluster that a control plane joins when it is started; empty = a local one"),
    "database_url": Key("database of a control plane that is started; empty = SQLite in its state folder", secret=True),
    "host": Key("address that a control plane listens on when it is started", "127.0.0.1"),
    "tls_cert": Key("certificate that it serves, with its chain: PEM; empty = no TLS"),
    "tls_key": Key("the key of that certificate: PEM"),
    "insecure": Key(
        "listen beyond loopback without TLS, so that tokens can be read on the way: yes or no", fault=_yes_no
    ),
    "port": Key("port that it listens on; empty = 6810, or any free one", fault=_port),
    "gpus": Key("GPUs of the local Ray; empty = those that the machine has, or 2 logical ones", fault=_count),
    "health": Key("limits of the nodes' health checks, such as disk=2GiB,skew=10s; see docs/health.md", fault=_health),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it comes from: `--address`, `GPUSCHED_ADDRESS`, `FILE:LINE` or `default`."""

    value: str
    origin: str = DEFAULT


@dataclass(frozen=True, slots=True)
class Layer:
    """The settings of one place. `kind` is flag, environment, project, user or system."""

    kind: str
    settings: Mapping[str, Setting]


class Config:
    """All layers, the first one first."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers

    def find(self, key: str) -> tuple[Setting, str]:
        """A setting and the kind of the layer that it is from (`default` for none)."""
        for layer in self.layers:
            if key in layer.settings:
                return layer.settings[key], layer.kind
        return Setting(KEYS[key].default), DEFAULT

    def __getitem__(self, key: str) -> str:
        return self.find(key)[0].value


def load(
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    *,
    system: Path = SYSTEM_FILE,
) -> Config:
    """Read every layer.

    Args:
        flags: key -> value, as given on the command line.
        environ: None = this process's.
        folder: where the search for the project's file begins; None = the current folder.
        system: the system's file.

    Raises:
        SpecError: a file cannot be read, has an unknown key or a value that cannot be; carries every problem.
    """
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    layers = [
        Layer("flag", {key: Setting(value, f"--{key.replace('_', '-')}") for key, value in (flags or {}).items()}),
        Layer("environment", dict(_from_environment(environ))),
    ]
    for layer in layers:
        problems += [
            Problem(setting.origin, 0, 0, "", f"cannot be {setting.value[:80]!r}", fault)
            for key, setting in layer.settings.items()
            if setting.value and (fault := KEYS[key].fault(setting.value))
        ]
    for kind, path in files(environ, folder, system):
        layers.append(Layer(kind, _from_file(path, problems)))
    if problems:
        raise SpecError(problems[:MOST_PROBLEMS])
    return Config(layers)


def files(
    environ: Mapping[str, str], folder: Path | None = None, system: Path = SYSTEM_FILE
) -> Iterator[tuple[str, Path]]:
    """The files that are read, as far as they exist: (project | user | system, path)."""
    project = _project_file(folder)
    if project is not None:
        yield "project", project
    user = user_file(environ)
    if user is not None and _is_file(user):
        yield "user", user
    if _is_file(system):
        yield "system", system


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Where the user's file is, or would be; None = there is no home directory."""
    base = environ.get("XDG_CONFIG_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "gpusched" / "config.yaml"
    home = environ.get("HOME")
    return Path(home) / ".config" / "gpusched" / "config.yaml" if home else None


def _project_file(folder: Path | None) -> Path | None:
    try:
        here = Path.cwd() if folder is None else folder
    except OSError:
        return None  # the current folder was deleted
    return next((path for parent in (here, *here.parents) if _is_file(path := parent / PROJECT_FILE)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # below a folder that may not be entered: not ours


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Setting]]:
    for key in KEYS:
        name = f"GPUSCHED_{key.upper()}"
        if value := environ.get(name, "").strip():
            yield key, Setting(value, name)
        elif key == "address" and (value := environ.get(URL_VARIABLE, "").strip()):
            yield key, Setting(value, URL_VARIABLE)


def _from_file(path: Path, problems: list[Problem]) -> dict[str, Setting]:
    # YAML takes a while to load, and most commands find no file.
    from ..jobs.yaml_faults import MAX_BYTES, YamlError, decode  # noqa: PLC0415 - see above
    from ..jobs.yaml_marks import documents  # noqa: PLC0415 - see above

    file = str(path)
    found: dict[str, Setting] = {}
    try:
        with path.open("rb") as source:
            text = decode(source.read(MAX_BYTES + 1), file)
        for document in documents(text, file, problems):
            found.update(_settings(document, file, problems))
    except YamlError as error:
        problems.append(error.problem)
    except OSError as error:
        problems.append(Problem(file, 0, 0, "", f"cannot be read: {error.strerror or error}"))
    return found


def _settings(document: Node, file: str, problems: list[Problem]) -> Iterator[tuple[str, Setting]]:
    if document.kind != "map":
        if document.kind != "scalar" or document.scalar is not None:
            what = "must be `key: value` lines"
            problems.append(Problem(file, document.line, document.column, "", what, f"the keys are {', '.join(KEYS)}"))
        return
    for key, (name, value) in document.pairs.items():
        if key not in KEYS:
            problems.append(Problem(file, name.line, name.column, key[:128], "unknown key", suggestion(key)))
        elif value.kind != "scalar":
            problems.append(Problem(file, value.line, value.column, key, f"must be one value, not a {value.kind}"))
        elif value.scalar is not None:
            text = value.text.strip()
            if text and (fault := KEYS[key].fault(text)):
                problems.append(Problem(file, value.line, value.column, key, f"cannot be {text[:80]!r}", fault))
            yield key, Setting(text, f"{file}:{name.line}")


def suggestion(key: str) -> str:
    """The known key that an unknown one was likely meant to be, or all of them."""
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes alone

    close = get_close_matches(key.lower().replace("-", "_"), KEYS, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else f"the keys are {', '.join(KEYS)}"


def strangers(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that look like settings and are none, each with a suggestion; a job has some of its own."""
    for name in sorted(environ):
        key = name.removeprefix("GPUSCHED_").lower()
        if (
            name.startswith("GPUSCHED_")
            and name not in {URL_VARIABLE, "GPUSCHED_SECRET_KEY", "GPUSCHED_SECRET_KEY_FILE"}
            and key not in KEYS
            and "GPUSCHED_JOB_ID" not in environ
        ):
            yield name, suggestion(key)
