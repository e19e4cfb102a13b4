"""Launched as any server is: ready by generating, in a warden's care, ended with clients heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packaging.version import Version
from simulation_world import simulated

from acceptance.deployments.installed import Vllm
from acceptance.deployments.schema import Deployment, Profile
from acceptance.errors import ServerError
from acceptance.secrets import Redactor
from acceptance.serving.launch import launch
from acceptance.serving.shutdown import end_idle, end_in_flight
from acceptance.simulation.faults import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.serving.server import Server

CLIENT = Vllm(Version("0.33.0"), ("vllm",), cpu=False)  # only puts load on


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCEPTANCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)


def start(folder: Path, deployment: Deployment) -> Server:
    return launch(deployment, Profile.BENCHMARK, CLIENT, folder, redactor=Redactor())


def test_ready_and_gone_with_every_client_answered(tmp_path: Path) -> None:
    server = start(tmp_path, simulated("fp4-4xb200-dp-ep"))
    try:
        assert server.version == Version("0.32.0")
        assert server.vllm is CLIENT
        assert server.startup.facts.expert_parallel
        assert server.startup.facts.total_kv_tokens
        ended = end_in_flight(server)
    finally:
        assert server.custody is not None
        server.custody.end(5)
    assert ended.code == 0
    assert not ended.survivors
    assert [client.how for client in ended.clients] == ["HTTP 200"] * 4
    assert all(client.whole for client in ended.clients)


def test_a_second_start_says_the_same(tmp_path: Path) -> None:
    from acceptance.serving.generation import generate

    said = []
    for _ in range(2):
        server = start(tmp_path, simulated())
        answer = generate(server, server.model, tokens=16, timeout=60)
        said.append((answer["choices"][0]["text"], answer["system_fingerprint"]))
        assert end_idle(server).code == 0
    assert said[0] == said[1]


def test_a_start_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"fault": "never-ready"}')
    deployment = simulated()
    budgets = deployment.budgets.model_copy(update={"silence": 3.0})
    with pytest.raises(ServerError, match="was silent"):
        start(tmp_path, deployment.model_copy(update={"budgets": budgets}))
