"""How the gateway begins: `python -m gpusched.cluster.ray.gateway_process ADDRESS`, with that cluster's token mode.

Ray reads the mode when it is imported. A driver that shows a token to a cluster without them is let in, but from then
on asks others for one too: no other node could fetch an object from it, such as a workdir.
"""

from __future__ import annotations

import os
import sys

PERHAPS = "GPUSCHED_RAY_TOKEN_MAYBE"
"""Variable of the gateway's environment: a token lies about, and nobody said whether the cluster wants one."""
WITHIN = 5.0
"""Seconds for the cluster to say so."""


def wants_token(address: str) -> bool | None:
    """Whether a Ray cluster refuses who shows no token; None = it did not say: gone, or it speaks TLS."""
    import grpc  # noqa: PLC0415 - Ray's own dependency; not for the control plane

    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=WITHIN)
        except grpc.RpcError as error:
            return True if error.code() is grpc.StatusCode.UNAUTHENTICATED else None
    return False


def main() -> None:
    """Settle the mode, then be the gateway."""
    if os.environ.pop(PERHAPS, "") and wants_token(sys.argv[1]) is not False:
        os.environ["RAY_AUTH_MODE"] = "token"
    from .gateway import main as serve  # noqa: PLC0415 - it imports Ray

    serve()


if __name__ == "__main__":
    main()
