"""A control plane on this machine's processes, as a process of its own: `python local_plane.py HOME`. To be killed."""

import json
import sys
import threading
from pathlib import Path

from live_kit import Plane

plane = Plane(Path(sys.argv[1]))
print(json.dumps({"url": plane.server.url, "token": plane.server.token}), flush=True)  # noqa: T201 - its parent reads this
threading.Event().wait()
