"""vLLM on CPU finds itself as `vllm` ending in +cpu, and the plugins that it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from acceptance.rehearsal.overlay import ROOT, overlay_env, write_overlay

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = """
import json
from importlib.metadata import entry_points, version
plugins = {p.name: p.value for p in entry_points(group="vllm.general_plugins")}
print(json.dumps([version("vllm"), plugins]))
"""
DATA_PARALLEL = "acceptance.rehearsal.inside.cpu_data_parallel:register"
ALWAYS = {
    "acceptance_cpu_expert_map": "acceptance.rehearsal.inside.cpu_expert_map:register",
    "acceptance_cpu_waiting": "acceptance.rehearsal.inside.cpu_waiting:register",
    "acceptance_cpu_processes": "acceptance.rehearsal.inside.cpu_processes:register",
    "acceptance_cpu_seeds": "acceptance.rehearsal.inside.cpu_seeds:register",
}


def ask(overlay: Path) -> tuple[str, dict[str, str]]:
    """The version of `vllm` and our plugins, as a server in this overlay sees them."""
    env = {**os.environ, **overlay_env(overlay)}
    answer = subprocess.run(
        [sys.executable, "-c", QUESTION], env=env, capture_output=True, text=True, check=True
    )
    version, plugins = json.loads(answer.stdout)
    return version, {name: at for name, at in plugins.items() if name.startswith("acceptance")}


@pytest.mark.parametrize("installed", ["0.32.0", "0.32.0+cpu", "0.32.0+anything"])
def test_a_server_finds_vllm_for_cpu_and_its_plugins(tmp_path: Path, installed: str) -> None:
    write_overlay(tmp_path, Version(installed))
    assert ask(tmp_path) == (
        "0.32.0+cpu",
        {**ALWAYS, "acceptance_cpu_data_parallel": DATA_PARALLEL},
    )


def test_the_data_parallel_plugin_can_be_left_out(tmp_path: Path) -> None:
    write_overlay(tmp_path, Version("0.32.0"), data_parallel_plugin=False)
    assert ask(tmp_path)[1] == ALWAYS


def test_written_again_it_says_the_last(tmp_path: Path) -> None:
    """A run that is resumed finds its folder, made by another vLLM or with other options."""
    write_overlay(tmp_path, Version("0.31.0"))
    write_overlay(tmp_path, Version("0.32.0"), data_parallel_plugin=False)
    assert ask(tmp_path) == ("0.32.0+cpu", ALWAYS)


def test_it_is_found_before_the_callers_own_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which stays, behind it."""
    callers = tmp_path / "callers"
    write_overlay(callers, Version("9.9"))
    (callers / "callers_own.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(callers))
    write_overlay(tmp_path / "ours", Version("0.32.0"))
    assert ask(tmp_path / "ours")[0] == "0.32.0+cpu"
    path = overlay_env(tmp_path / "ours")["PYTHONPATH"].split(os.pathsep)
    assert path == [str(tmp_path / "ours"), str(ROOT), str(callers)]


def test_a_server_in_it_asks_nobody_outside(tmp_path: Path) -> None:
    assert overlay_env(tmp_path).items() >= {"HF_HUB_OFFLINE": "1"}.items()


@pytest.mark.parametrize("plugin", [*ALWAYS.values(), DATA_PARALLEL])
def test_the_plugins_exist(plugin: str) -> None:
    module, _, name = plugin.partition(":")
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123
        assert f"def {name}() -> None:" in file.read()
