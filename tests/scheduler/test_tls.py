"""TLS with real handshakes: who is trusted, what is refused, and what is said when the ends do not speak alike."""

import os
import socket
import ssl

import pytest
from certificates import Authority
from live_kit import until

from gpusched.jobs.errors import GpuschedError, UnreachableError
from gpusched.scheduler import server as serving
from gpusched.scheduler.client import Client
from gpusched.scheduler.server import Server
from gpusched.scheduler.tls import Served, client_context


@pytest.fixture
def lab(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def secure(plane, lab, monkeypatch):
    """A second server of a control plane, with TLS, that looks at its certificate often."""
    monkeypatch.setattr(serving, "FLUSH_EVERY", 0.05)
    certificate, key = lab.sign("localhost", "127.0.0.1")
    server = Server(plane.service, plane.backend, token=plane.server.token, tls=Served(certificate, key))
    server.start()
    yield server
    server.stop()


def ask(server, **trust):
    return Client(server.url, server.token, timeout=10, **trust).whoami()["user"]


def test_a_client_that_trusts_the_authority_speaks_https(secure, lab):
    assert secure.url.startswith("https://127.0.0.1:")
    assert ask(secure, ca=str(lab.file)) == "ann"
    # The control plane's own machine knows the certificate from its file.
    assert ask(secure, ca=str(lab.folder / "server.pem"), pinned=True) == "ann"


def test_an_authority_that_is_not_trusted_is_refused_with_what_to_do(secure, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    for trust in ({}, {"ca": str(stranger.file)}):
        with pytest.raises(UnreachableError, match="its certificate is not trusted") as raised:
            ask(secure, **trust)
        assert "--ca, GPUSCHED_CA" in raised.value.hint


def test_a_certificate_for_another_name_is_refused(plane, lab):
    server = Server(plane.service, plane.backend, tls=Served(*lab.sign("gpu.example.org")))
    server.start()
    try:
        with pytest.raises(UnreachableError, match="its certificate is for another name"):
            ask(server, ca=str(lab.file))
    finally:
        server.stop()


def test_http_to_an_https_port_and_the_reverse_are_told_in_words(secure, plane, lab):
    plain = secure.url.replace("https", "http")
    with pytest.raises(UnreachableError, match="speaks HTTPS") as raised:
        Client(plain, "x").whoami()
    assert raised.value.hint == f"write {secure.url}"
    with pytest.raises(UnreachableError, match="does not speak TLS") as raised:
        Client(plane.server.url.replace("http", "https"), "x", ca=str(lab.file)).whoami()
    assert plane.server.url in raised.value.hint


def test_what_is_older_than_tls_1_2_is_refused(secure, lab):
    context = client_context(str(lab.file))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert secure._tls.context.minimum_version is ssl.TLSVersion.TLSv1_2
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", secure.port)) as plain, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(plain)


def test_a_replaced_certificate_is_served_without_a_restart(secure, lab):
    before = ssl.get_server_certificate(("127.0.0.1", secure.port))
    certificate, key = lab.sign("localhost", "127.0.0.1")

    def served() -> str:
        return ssl.get_server_certificate(("127.0.0.1", secure.port))

    until(lambda: served() != before, within=15)
    assert served().split() == certificate.read_text().split()
    # Half of a pair is not served: the one before goes on.
    key.write_text("broken")
    os.utime(certificate)
    assert ask(secure, ca=str(lab.file)) == "ann"


def test_a_reload_says_what_is_wrong_once_and_keeps_the_pair_before(lab):
    certificate, key = lab.sign("localhost")
    served = Served(certificate, key)
    assert served.reload() is False
    key.write_text("broken")
    with pytest.raises(GpuschedError, match="are no certificate with its key"):
        served.reload()
    assert served.reload() is False
    lab.sign("localhost")
    assert served.reload() is True


def test_files_that_are_no_pair_are_told_by_name(lab, tmp_path):
    certificate, _ = lab.sign("localhost", to="one")
    _, other = lab.sign("localhost", to="two")
    with pytest.raises(GpuschedError, match=r"one\.pem and .*two\.key are no certificate with its key"):
        Served(certificate, other)
    with pytest.raises(GpuschedError, match=r"cannot read .*none\.pem: No such file"):
        Served(tmp_path / "none.pem", other)
    with pytest.raises(GpuschedError, match=r"cannot read certificates from .*none\.pem"):
        client_context(str(tmp_path / "none.pem"))
