"""A control plane on this machine's processes, as a process of its own, to be killed or frozen.

`python local_plane.py HOME [DATABASE CLUSTER TOKEN]`: with the latter, one of several on one database and cluster.
"""

import json
import logging
import sys
import threading
from pathlib import Path

from live_kit import Plane

logging.basicConfig(level=logging.INFO)
home, database, cluster, token = [*sys.argv[1:], "", "", "", ""][:4]
plane = Plane(
    Path(home), database=database, cluster=Path(cluster) if cluster else None, token=token, ready=not database
)
print(json.dumps({"url": plane.server.url, "token": plane.server.token}), flush=True)  # noqa: T201 - its parent reads this
threading.Event().wait()
