"""docs/images/live.txt: what stands on a terminal during a run on the simulated lane.

    python tests/tools/live_capture.py

Needs tmux, and vLLM for its client (the rehearsal's environment). Takes a minute or two. The
simulated start is told to take twelve seconds, so that there is something to see of it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "images" / "live.txt"
COLUMNS, ROWS = 100, 32
LIMIT = 300.0  # seconds
RUN = ("--deployment", "simulated-fp8-8xh200-tp-ep", "--tier", "smoke", "--tb=no", "-rN")
CHECKS = "test_live_config or test_liveness or test_throughput"
SLOW = '{"start_seconds": 12}'
MOMENTS = {
    "while a server starts": r"phase +[a-z]+, \d[\s\S]*loaded +\d",
    "while a cell is measured": r"performance, measuring[\s\S]*tokens [1-9]",
    "when it is over": r"report  ",
}


def main() -> int:
    if shutil.which("tmux") is None:
        print("tmux is not installed")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "pytest", *RUN, "-k", CHECKS, "-p", "no:cacheprovider"]
        words += ["--run-dir", f"{folder}/20261124-101500"]
        socket = f"{folder}/tmux"
        shell = f"cd {shlex.quote(str(ROOT))}; {shlex.join(words)}; sleep {LIMIT}"
        size = ("-x", str(COLUMNS), "-y", str(ROWS))
        env = {**os.environ, "PYTHONPATH": str(ROOT), "ACCEPTANCE_SIMULATION": SLOW}
        _tmux(socket, "new-session", "-d", "-s", "live", *size, shell, env=env)
        try:
            found = _watch(socket)
        finally:
            _tmux(socket, "kill-server")
        told = [f"$ pytest {shlex.join([*RUN, '-k', CHECKS])}"]
        for moment in MOMENTS:
            told += [f"\n----- {moment}\n", _public(found[moment], folder)]
    OUT.write_text("\n".join(told) + "\n", encoding="utf-8")
    return 0


def _watch(socket: str) -> dict[str, str]:
    found: dict[str, str] = {}
    limit = time.monotonic() + LIMIT
    while len(found) < len(MOMENTS):
        if time.monotonic() > limit or list(MOMENTS)[-1] in found:
            raise SystemExit(f"not seen: {', '.join(MOMENTS.keys() - found.keys())}")
        screen = _tmux(socket, "capture-pane", "-p", "-t", "live")
        for moment, pattern in MOMENTS.items():
            if moment not in found and re.search(pattern, screen):
                found[moment] = screen
        time.sleep(0.2)
    return found


def _public(screen: str, folder: str) -> str:
    """Without what is only of this machine and of this Python."""
    kept = [
        line
        for line in screen.rstrip().splitlines()
        if not re.match(r"platform |rootdir|configfile|plugins|testpaths|[\d.]+$", line)
    ]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept))
    return text.replace(folder, "…/reports/runs").replace(str(ROOT), "…")


def _tmux(socket: str, *words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["tmux", "-S", socket, "-f", "/dev/null", *words],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
