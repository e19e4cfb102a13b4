"""The identity of a run: what was judged, by which suite, on which machine."""

from __future__ import annotations

import platform
import subprocess
import time
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from reports.schema import GpuIdentity, RunRecord, SelectedDeployment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from acceptance.deployments.schema import Deployment

DISTRIBUTION = "deepseek-vllm-acceptance"
ROOT = Path(__file__).parents[1]


def select(deployment: Deployment) -> SelectedDeployment:
    """A deployment as the run's record names it."""
    gpus = deployment.gpus
    return SelectedDeployment(
        name=deployment.name,
        digest=deployment.digest,
        lane=deployment.lane,
        model=deployment.model,
        precision=deployment.precision.value,
        layout=deployment.layout.label,
        gpus=f"{gpus.count}x{gpus.kind}" if gpus.kind else "CPU",
    )


def run_record(
    *,
    argv: Sequence[str],
    deployments: Iterable[Deployment],
    vllm: str | None = None,
    driver: str | None = None,
    gpus: Sequence[GpuIdentity] = (),
    tier: str = "",
    narrowed: Sequence[str] = (),
) -> RunRecord:
    """The record that opens a run, taken here and now."""
    return RunRecord(
        time=time.time(),
        suite_version=suite_version(),
        suite_commit=suite_commit(),
        argv=tuple(argv),
        host=platform.node(),
        platform=platform.platform(),
        python=platform.python_version(),
        vllm=vllm,
        driver=driver,
        gpus=tuple(gpus),
        deployments=tuple(select(deployment) for deployment in deployments),
        tier=tier,
        narrowed=tuple(narrowed),
    )


def suite_version() -> str:
    """Version of the suite: of the checkout it runs from, else as installed."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def suite_commit() -> str:
    """Commit of the suite's own repository, `+` added when files differ from it; empty when the
    suite was installed without one."""
    if not (ROOT / ".git").exists():
        return ""
    commit = _git(ROOT, "rev-parse", "HEAD")
    return commit + "+" if commit and _git(ROOT, "status", "--porcelain") else commit


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
