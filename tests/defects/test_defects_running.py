"""Runs begin where what takes long has been done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from defects_running import HERE, PRELOAD, ROOT

if TYPE_CHECKING:
    from pathlib import Path

TELLS = """
import json, os, sys
from pathlib import Path

def pytest_unconfigure(config):
    plugins = [name for name, _ in config.pluginmanager.list_name_plugin()]
    told = {"modules": sorted(sys.modules), "plugins": plugins}
    Path(os.environ["TOLD"]).write_text(json.dumps(told))
"""
# In a process of its own, since the one that runs are forked from stays for others; and where the
# defects' folder is on the path of the process alone, as for `python -m tests.defects`.
RUNS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from defects_running import Asked, Runs
folder = Path(sys.argv[1])
env = {"PYTHONPATH": str(folder), "TOLD": str(folder / "told.json")}
ran = Runs(folder).run("one", Asked(["-p", "tells", "--markers"], env, limit=60))
sys.exit(ran.out if ran.code else 0)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Modules and plugins of a run."""
    folder: Path = tmp_path_factory.mktemp("runs")
    (folder / "tells.py").write_text(TELLS)
    words = [sys.executable, "-c", RUNS, str(folder), str(HERE)]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    found: dict[str, list[str]] = json.loads((folder / "told.json").read_text())
    return found


def test_what_takes_long_is_imported_before_a_run_begins(told: dict[str, list[str]]) -> None:
    assert {PRELOAD, "acceptance.serving.launch", "openai"} <= set(told["modules"])


def test_plugins_that_are_installed_are_still_found(told: dict[str, list[str]]) -> None:
    assert {"xdist", "html_fixtures", "metadata"} <= set(told["plugins"])
