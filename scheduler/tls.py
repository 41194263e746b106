"""TLS on both ends: the certificate that is served and read anew when it changes, and whom a client trusts."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from ..jobs.errors import GpuschedError

_PROBE = 2.0
"""Seconds that a server has to say whether it speaks TLS."""


class Served:
    """A certificate with its key, for a server.

    Args:
        certificate: PEM, its chain after it. key: PEM.

    Attributes:
        context: for the server's sockets. TLS 1.2 and newer.

    Raises:
        GpuschedError: one of them cannot be read, or they do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen: object = None
        self._load()
        self._seen = self._stamp()

    def reload(self) -> bool:
        """Serve what is in the files now, to connections from now on. Whether it is another than before.

        Raises:
            GpuschedError: as when it was made; the one before goes on being served.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp  # a bad one is said once
        # Tried apart: half of a pair that is just being replaced must not be served.
        Served(self.certificate, self.key)
        self._load()
        return True

    def _load(self) -> None:
        for path in (self.certificate, self.key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise GpuschedError(
                    f"cannot read {path}: {error.strerror or error}", hint="see docs/access.md"
                ) from None
        try:
            self.context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            why = str(getattr(error, "reason", None) or error).replace("_", " ").lower()
            raise GpuschedError(
                f"{self.certificate} and {self.key} are no certificate with its key: {why}",
                hint="both are PEM; the key has no pass phrase",
            ) from None

    def _stamp(self) -> object:
        found: list[tuple[int, int, int] | None] = []
        for path in (self.certificate, self.key):
            try:
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                found.append(None)
        return tuple(found)


def _no_password() -> str:
    raise ValueError("the key has a pass phrase")


def client_context(ca: str = "", *, pinned: bool = False) -> ssl.SSLContext:
    """Whom a client trusts.

    Args:
        ca: PEM file of the authorities; empty = the system's.
        pinned: the file is the server's very certificate: its name need not be the host's.

    Raises:
        GpuschedError: the file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise GpuschedError(
            f"cannot read certificates from {ca}: {why}", hint="a PEM file: --ca, GPUSCHED_CA"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pinned:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
    return context


def why_not(error: ssl.SSLError, url: str) -> tuple[str, str]:
    """(what went wrong, what to do) of a handshake that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        words = error.verify_message.rstrip(".")
        if "ostname mismatch" in words or "IP address mismatch" in words:
            return f"its certificate is for another name: {words}", "use the name that the certificate has"
        return (
            f"its certificate is not trusted: {words}",
            "give the file of the authority that signed it with --ca, GPUSCHED_CA or `ca:` in the configuration",
        )
    if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}:
        plain = "http" + url.removeprefix("https")
        return "it does not speak TLS", f"if nobody can listen in between: {plain}; else start it with --tls-cert"
    return f"no TLS with it: {(error.reason or str(error)).replace('_', ' ').lower()}", "TLS 1.2 or newer is needed"


def speaks_tls(host: str, port: int) -> bool:
    """Whether a server begins a TLS handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent: only looked at
    try:
        with (
            socket.create_connection((host, port), timeout=_PROBE) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False
