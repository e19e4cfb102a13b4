"""The table of known failures (kinds.toml), and the texts that are not causes."""

from __future__ import annotations

import re
import signal
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_SEARCHED = 4000  # characters of a text that patterns look at


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to fail, as kinds.toml describes it."""

    name: str
    hint: str = ""
    source: str = ""
    pattern: re.Pattern[str] = re.compile("")
    frames: re.Pattern[str] | None = None
    alone: bool = False


def _kind(row: dict[str, Any]) -> Kind:
    frames = row.get("frames")
    return Kind(
        name=row["name"],
        hint=row["hint"],
        source=row["source"],
        pattern=re.compile(row["pattern"]),
        frames=re.compile(frames) if frames else None,
        alone=row.get("alone", False),
    )


TABLE: dict[str, list[dict[str, Any]]] = tomllib.loads(
    Path(__file__).with_name("kinds.toml").read_text(encoding="utf-8")
)
KINDS = tuple(_kind(row) for row in TABLE["kind"])
SILENCES = tuple(_kind(row) for row in TABLE["silence"])
_SIGNALS = {row["name"]: Kind(row["kind"], row["hint"], row["source"]) for row in TABLE["signal"]}

# A text that is a cause by itself, without a traceback.
ALONE = re.compile("|".join(f"(?:{kind.pattern.pattern})" for kind in KINDS if kind.alone))
# Consequences. They name no cause; reported only when nothing better is in the log.
SECONDARY = re.compile(
    r"[Ss]ee root cause above|See stack trace|[Ss]tack trace above|EngineDeadError"
    r"|EngineGenerateError|^RuntimeError: cancelled$|WorkerProc initialization failed"
    r"|Engine core initialization failed|WorkerProc failed to start|EngineCore failed to start"
    r"|^SystemExit|^KeyboardInterrupt|CancelledError|died with exit code (?:\d|None)"
    r"|ExceptionGroup: "
)
# One rank's view of another rank's death, or plumbing around the real exception.
PEER = re.compile(
    r"[Cc]onnection (?:closed|reset|refused)|Connection was likely closed|Broken ?[Pp]ipe|^EOFError"
    r"|remote process exited|NCCL communicator was aborted|recvValue failed"
    r"|Gloo connectFullMesh failed|died unexpectedly|engine core exited unexpectedly"
    r"|^TimeoutError$|^(?:\w{1,40}\.)?Empty$|^StopIteration$|^BlockingIOError|^zmq\.error\."
)
# Lines that look bad and are not.
BENIGN = re.compile(
    r"No available shared memory broadcast block found|Found ulimit of|resource_tracker|nanobind"
    r"|leaked (?:instance|type|function|shared_memory|semaphore)|skipped remainder|FutureWarning"
    r"|UserWarning|DeprecationWarning|Triton is (?:not )?installed|LD_PRELOAD|Enforce eager set"
    r"|Dumping (?:input data|scheduler)|destroy_process_group"
)

STOPPED = Kind("stopped", "nothing failed before: find out who sent the signal")
ERROR_LINE = Kind("error-line", "no exception was logged; read the lines around it")
NO_OUTPUT = Kind("no-output", "the process ended before it wrote: run its command by hand")
_OTHER = Kind("exception", "read the excerpt; the innermost frame says where")
_SILENT = Kind("silent", "it hangs, or was killed from outside: see dmesg")


def kind_of(text: str, frames: Iterable[str] = ()) -> Kind:
    """The first kind that fits an exception's "Type: message" and its stack's function names."""
    stack = " ".join(frames)
    text = text[:_SEARCHED]
    for kind in KINDS:
        if kind.frames is not None and not kind.frames.search(stack):
            continue
        if kind.pattern.search(text):
            return kind
    return _OTHER


def silence_after(text: str) -> Kind:
    """What it can mean that nothing came after a line."""
    text = text[:_SEARCHED]
    return next((kind for kind in SILENCES if kind.pattern.search(text)), _SILENT)


def is_silence(name: str) -> bool:
    """Whether a kind says that nothing failed aloud."""
    return name in {kind.name for kind in (*SILENCES, _SILENT, NO_OUTPUT)}


def signal_kind(number: int) -> tuple[str, Kind]:
    """The name of a signal, and the kind of death by it."""
    known = {item.value: item.name for item in signal.Signals}
    name = known.get(number, f"number {number}")
    return name, _SIGNALS.get(name, Kind("signal", "see dmesg", "Linux signal(7)"))
