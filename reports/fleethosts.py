"""The hosts of a fleet, from their run directories: one run is one host."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from acceptance.cluster.record import State
from acceptance.fleet.host import Host
from acceptance.fleet.readings import readings
from reports.compare import names_of
from reports.observing import identity_of, observations
from reports.reading import read_results
from reports.ruling import last_end, selected, verdict_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from acceptance.cluster.record import FleetRecord
    from acceptance.fleet.thresholds import Thresholds
    from reports.reading import Results


def hosts_of(runs: Sequence[Path], limits: Thresholds) -> list[Host]:
    """Reads one run after the other and keeps of each only its verdict and its readings. A host is
    called as it calls itself, with its folder's name where two are called alike or none is told.
    A run that is not there, or holds no record, is a host all the same."""
    folders = names_of(runs)
    read = [host_of(read_results(run), limits) for run in runs]
    counts = Counter(host.name for host in read)
    return [
        host if host.name and counts[host.name] == 1 else replace(host, name=_full(host, folder))
        for host, folder in zip(read, folders, strict=True)
    ]


def hosts_of_record(record: FleetRecord, limits: Thresholds) -> list[Host]:
    """Every host of a fleet that the suite ran, by the fleet's names; why it dropped out, if so."""
    hosts = []
    for name, entry in sorted(record.hosts.items()):
        if entry.state is State.DONE:
            hosts.append(replace(host_of(read_results(record.run_of(name)), limits), name=name))
        else:
            why = f"it dropped out: {entry.why}" if entry.why else f"its run is {entry.state}"
            hosts.append(Host(name=name, torn=(why,)))
    return hosts


def host_of(results: Results, limits: Thresholds) -> Host:
    """One host; without a name where its record tells none."""
    record = results.run
    if record is None:
        why = str(results.problems[0]) if results.problems else "its record is empty"
        return Host(name="", torn=(f"its run is missing: {why}",))
    seen = identity_of(record)
    deployments = selected(results.records)
    identity = {
        "suite": f"{record.suite_version} {record.suite_commit}".strip(),
        "vllm": seen.pop("vllm"),
        "tier": record.tier,
        "deployments": ", ".join(sorted(f"{one.name} {one.digest[:12]}" for one in deployments)),
    }
    return Host(
        name=record.host,
        verdict=verdict_of(results),
        identity=identity,
        beside=seen,
        readings=readings(observations(results, record.host), limits.rules),
        torn=_torn(results),
    )


def _torn(results: Results) -> tuple[str, ...]:
    end = last_end(results.records)
    if end is None:
        return ("its run broke off, or goes on: it has no end",)
    return () if end.finished else ("its run was cut short",)


def _full(host: Host, folder: str) -> str:
    return f"{host.name} ({folder})" if host.name else folder
