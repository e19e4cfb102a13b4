"""A process that owns a fake server and is then killed: `python serving_owner.py RUN_DIR STAGE
FAULTS [DEPLOYMENT]`. It says the stage on standard output when it is there.

starting: launch is under way. serving: the server is ready. ending: it was told to end, with a
grace of an hour.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from serving_world import fake_deployment, start

if TYPE_CHECKING:
    from acceptance.serving.readiness import Progress


def main(run_dir: Path, stage: str, faults: str, name: str = "rehearsal-tp-ep") -> None:
    def tell(progress: Progress) -> None:
        if stage == "starting" and progress.line:
            print(stage, flush=True)

    deployment = fake_deployment(name, start=3600, silence=3600)
    server = start(run_dir, *faults.split(","), deployment=deployment, tell=tell)
    assert server.custody is not None
    if stage == "ending":
        threading.Thread(target=server.custody.end, args=(3600,), daemon=True).start()
        time.sleep(0.5)
    print(stage, flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    # What a shell started in the background has SIGINT ignored, and so would this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(Path(sys.argv[1]), *sys.argv[2:])
