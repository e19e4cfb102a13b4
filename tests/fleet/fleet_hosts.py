"""Hosts made up by hand, for the tests of the fleet's room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acceptance.deployments.schema import Lane
from acceptance.fleet.host import Host
from acceptance.fleet.readings import Place, Reading
from acceptance.judging.verdict import WORDS, RunVerdict, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "fp8-8xh200-tp-ep"
CELLS = ("balanced-b1", "balanced-b16", "balanced-b64")


def place(metric: str, what: str = "balanced-b16") -> Place:
    """A value of a cell; of a phase where `what` names none."""
    workload, found, _ = what.rpartition("-b")
    return Place(NAME, "benchmark", what, workload if found else "", metric)


def verdict(lane: Lane = Lane.FULL, said: Verdict = Verdict.ACCEPTED) -> RunVerdict:
    """Of one run."""
    word = WORDS[lane] if said is Verdict.ACCEPTED else str(said)
    return RunVerdict(verdict=said, word=word, lane=lane, reasons=(), tallies=())


def host(name: str, values: Mapping[Place, float], **more: Any) -> Host:
    """A host that was accepted and has these values."""
    told = {"verdict": verdict(), "identity": {"vllm": "0.32.0"}, **more}
    return Host(name=name, readings={p: Reading(v, "u") for p, v in values.items()}, **told)


def hosts(metric: str, *values: float, what: str = "balanced-b16") -> list[Host]:
    """One host for each value: h0, h1 and so on."""
    return [host(f"h{n}", {place(metric, what): value}) for n, value in enumerate(values)]
