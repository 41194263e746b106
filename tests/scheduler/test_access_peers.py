"""Who is at the other end of a loopback connection, told by the kernel: other users of a machine are kept out."""

import os
import socket
import subprocess
import sys

import pytest

from gpusched.scheduler.access.peers import is_ours, uid_of_peer

NOBODY = 65534
ASK = """
import encodings.idna, http.client, os, sys
if len(sys.argv) > 2:  # not before the imports: Python may lie where only root can read it
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
connection.request("GET", "/v1/jobs")
reply = connection.getresponse()
print(reply.status, reply.read().decode())
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_says_whose_process_is_at_the_other_end(host):
    try:
        server = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server, socket.create_connection(server.getsockname()[:2]) as client:
        accepted, there = server.accept()
        with accepted:
            assert uid_of_peer(accepted.getsockname()[:2], there[:2]) == os.getuid()
        assert uid_of_peer((host, 1), client.getsockname()[:2]) is None, "no such connection"


def test_who_cannot_be_told_is_a_stranger():
    assert not is_ours(None)
    assert is_ours(0)
    assert is_ours(os.geteuid())
    assert not is_ours(NOBODY - 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_of_the_machine_reads_nothing_without_a_token(plane):
    command = [sys.executable, "-c", ASK, str(plane.server.port)]
    ours = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ours.stdout.startswith("200 ")
    theirs = subprocess.run([*command, str(NOBODY)], capture_output=True, text=True, check=False, cwd="/")
    assert theirs.stdout.startswith("401 ")
    assert "this control plane is another user's: it takes a token" in theirs.stdout
