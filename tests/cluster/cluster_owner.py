"""A driver that starts a server on the cluster and is then killed: `python cluster_owner.py RUN_DIR
ADDRESS FAULTS`. It says "serving" when it is there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cluster_world import start_on

from acceptance.cluster.connect import connect

if __name__ == "__main__":
    start_on(connect(sys.argv[2]), Path(sys.argv[1]), *sys.argv[3].split(","))
    print("serving", flush=True)
    time.sleep(3600)
