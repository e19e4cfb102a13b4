"""Installs a lock file into the environment of the Python that runs this: tox's install command.

Uses uv where `accept` brought it (seconds instead of minutes), else pip. uv does not read pip's
configuration, so a find-links folder, index or certificate configured for pip is handed over.
Locks are complete, so nothing is resolved (--no-deps). Where no configured index has the CPU
build of torch, uv's own knowledge of PyTorch's CPU index is used.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

# pip's key: uv's variable, and what joins several values there.
HANDED_OVER = {
    "find-links": ("UV_FIND_LINKS", ","),
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "cert": ("SSL_CERT_FILE", " "),
}


def pip_settings() -> dict[str, str]:
    """pip's effective configuration as variables for uv; what is set for uv already wins."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in HANDED_OVER and value:
            variable, joint = HANDED_OVER[key]
            found[variable] = joint.join(str(ast.literal_eval(value)).split())
    return {name: value for name, value in found.items() if name not in os.environ}


def attempts(packages: list[str]) -> list[list[str]]:
    """The commands to try, in order."""
    uv = os.environ.get("ACCEPT_UV")
    if not uv:
        return [[sys.executable, "-m", "pip", "install", "--no-deps", *packages]]
    base = [uv, "pip", "install", "--python", sys.executable, "--no-deps", "--compile-bytecode"]
    return [[*base, *packages], [*base, "--torch-backend", "cpu", *packages]]


def main(packages: list[str]) -> int:
    env = {**os.environ, **pip_settings(), "UV_INDEX_STRATEGY": "unsafe-best-match"}
    said = ""
    for command in attempts(packages):
        done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            return 0
        said = done.stderr.strip()
    sys.stderr.write(
        f"\nThe installation failed. The installer's last words:\n\n{said[-3000:]}\n\n"
        "Nothing is lost: what was fetched is cached. Mend the cause (network, disk space, an\n"
        "index that lacks the package: pip's own configuration and UV_INDEX are honoured) and run\n"
        "the same command again.\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
