"""Tokens of control planes elsewhere, as `gpusched login` keeps them: one file, for its owner's eyes only."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..jobs.errors import GpuschedError


@dataclass(frozen=True, slots=True)
class Credential:
    """What one control plane knows us by.

    Attributes:
        token: of `gpusched token create`. user: whose it is. ca: file of the authority that signed its certificate;
            empty = the system's.
    """

    token: str
    user: str = ""
    ca: str = ""


def credentials_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Where they are, or would be; None = there is no home directory."""
    from .config import user_file  # noqa: PLC0415 - they know each other

    beside = user_file(os.environ if environ is None else environ)
    return None if beside is None else beside.with_name("credentials.json")


def known_as(address: str) -> Credential | None:
    """What a control plane knows us by; of several addresses, of the first that is known."""
    kept = _read()
    return next((kept[key] for key in map(key_of, addresses(address)) if key in kept), None)


def keep(address: str, credential: Credential) -> Path:
    """Remember it for a control plane. Where that is written.

    Raises:
        GpuschedError: it cannot be written.
    """
    kept = _read()
    for one in addresses(address):
        kept[key_of(one)] = credential
    return _write(kept)


def forget(address: str) -> bool:
    """Forget what a control plane knows us by. Whether there was anything."""
    kept = _read()
    known = [key for key in map(key_of, addresses(address)) if key in kept]
    for key in known:
        del kept[key]
    if known:
        _write(kept)
    return bool(known)


def addresses(address: str) -> list[str]:
    """The URLs of an address: there may be several, with commas between them."""
    return [one.strip() for one in address.split(",") if one.strip()]


def key_of(url: str) -> str:
    """A URL as credentials are kept under it: what is sent to one is sent to no other."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def too_open(path: Path) -> str:
    """What is wrong with the permissions of a file that holds a token; empty = nothing."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    return f"{path} holds a token and others may read it: `chmod 600 {path}`" if mode & 0o077 else ""


def _read() -> dict[str, Credential]:
    path = credentials_file()
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))["servers"]
        return {url: Credential(str(one["token"]), str(one["user"]), str(one["ca"])) for url, one in found.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise GpuschedError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise GpuschedError(f"{path} is damaged", hint="delete it, and `gpusched login` again") from None


def _write(kept: Mapping[str, Credential]) -> Path:
    path = credentials_file()
    if path is None:
        raise GpuschedError("there is no home directory to keep a token in", hint="set HOME, or use GPUSCHED_TOKEN")
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.unlink(missing_ok=True)  # one left behind may have other permissions
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(
                {"version": 1, "servers": {url: asdict(one) for url, one in sorted(kept.items())}}, file, indent=1
            )
        new.replace(path)
    except OSError as error:
        raise GpuschedError(f"cannot write {path}: {error.strerror or error}") from None
    return path
