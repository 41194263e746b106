"""Tokens: 256 random bits behind an id. Kept as SHA-256, which is enough for what nobody can guess."""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256
from typing import NamedTuple

PREFIX = "gsk_"
"""What every token begins with, so that scanners of leaked secrets and people know one when they see it."""
_FORM = re.compile(r"gsk_([a-z0-9]{10})_([A-Za-z0-9_-]{43})")
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_NOBODY = sha256(b"nobody's").hexdigest()


class New(NamedTuple):
    """A token that was just made: `text` is shown once, `id` and `digest` are kept."""

    text: str
    id: str
    digest: str


def new_token() -> New:
    """A token unlike any other."""
    name = "".join(secrets.choice(_LETTERS) for _ in range(10))
    text = f"{PREFIX}{name}_{secrets.token_urlsafe(32)}"
    return New(text, name, digest(text))


def digest(text: str) -> str:
    """What is kept of a token."""
    return sha256(text.encode()).hexdigest()


def id_of(text: str) -> str:
    """The id in a token; empty = it is none of ours."""
    found = _FORM.fullmatch(text)
    return found[1] if found else ""


def matches(text: str, kept: str | None) -> bool:
    """Whether a token is the one of which this is kept (None = of none). Takes as long whatever the answer is."""
    return hmac.compare_digest(digest(text), kept or _NOBODY) and kept is not None
