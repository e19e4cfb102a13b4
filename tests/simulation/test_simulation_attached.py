"""One deployment at several addresses: simulated servers of four ranks each, attached to as one of
eight, and a cell of the matrix measured on them by the worker around a tool of vLLM's shape."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from simulation_world import KEY, Running, running, simulated

from acceptance.deployments.schema import Profile
from acceptance.errors import ServerError
from acceptance.load.bench import run_cell
from acceptance.load.capacity import read_capacity
from acceptance.load.measurements import measurements
from acceptance.load.validity import check
from acceptance.load.warmup import WarmRule
from acceptance.load.worker import BenchWorker
from acceptance.load.workloads import make_cell
from acceptance.serving.addresses import short
from acceptance.serving.differences import differences
from acceptance.serving.generation import generate
from acceptance.serving.live import read_live
from acceptance.serving.metrics import GENERATED, scrape
from acceptance.simulation.command import simulated_vllm
from fixtures.addresses import addresses_of
from fixtures.attach import attach

sys.path += [str(Path(__file__).parents[1] / name) for name in ("load", "survival")]

from load_tool import write_tool
from survival_site import TOOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.load.cellrun import CellRun
    from acceptance.serving.server import Server

# Each half must hold all weights, since the simulation knows of no other host.
HALF = ("--data-parallel-size", "4", "--sim-gpu", "B200", "--sim-precision", "fp4")
LAYOUT = {"fingerprint_layout": "dp8-ep"}  # the half of a layout tells the whole of it
ONCE = WarmRule(least=1, most=1)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """Two halves of one deployment; a half with an engine that is given nothing; and strangers."""
    folder, dp = tmp_path_factory.mktemp("servers"), simulated("fp8-8xh200-dp-ep")
    asked: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "one": (HALF, LAYOUT),
        "two": (HALF, LAYOUT),
        "starved": (HALF, LAYOUT | {"starved_engine": 2}),
        "another layout": (HALF, {}),
        "another model": ((*HALF, "--served-model-name", "base"), LAYOUT),
    }
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(
                running(folder, dp, *more, fault=json.dumps(fault), wait=False)
            )
            for name, (more, fault) in asked.items()
        }
        for server in started.values():
            server.wait()
        yield started


def attached(*urls: str, metrics: tuple[str, ...] = ()) -> Server:
    option = SimpleNamespace(base_url=urls, metrics_url=metrics, profile=str(Profile.BENCHMARK))
    selection: Any = SimpleNamespace(vllm=simulated_vllm())
    config: Any = SimpleNamespace(option=option)
    deployment = simulated("fp8-8xh200-dp-ep")
    # How fast a machine is that others use as well is not what is tried here.
    scale = deployment.scale.model_copy(update={"speed_gated": False})
    return attach(deployment.model_copy(update={"scale": scale}), selection, config)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCEPTANCE_API_KEY", KEY)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchWorker]:
    folder = tmp_path_factory.mktemp("tool")
    env = {"PYTHONPATH": str(write_tool(folder, TOOL))}
    made = BenchWorker(simulated_vllm(), env, folder / "worker.log")
    yield made
    made.close()


def measured(server: Server, worker: BenchWorker, folder: Path) -> CellRun:
    cell = make_cell(server.deployment, "balanced-b16")
    return run_cell(server, cell, folder, worker, warm=ONCE, deadline=60)[0]


def test_what_two_addresses_do_together(
    servers: dict[str, Running], worker: BenchWorker, tmp_path: Path
) -> None:
    one, two = servers["one"].url, servers["two"].url
    server = attached(one, two)
    live = read_live(server)
    names = {f"{number}@{short(url)}" for url in (one, two) for number in range(4)}
    assert set(live.engines) == names
    found = differences(server.deployment, server.profile, live)
    assert not [difference for difference in found if difference.observable]
    capacity = read_capacity(server, make_cell(server.deployment, "balanced-b16"))
    assert capacity is not None
    assert set(capacity.kv_tokens) == names
    run = measured(server, worker, tmp_path)
    assert check(run) == ()
    evidence = measurements([run])["generated_tokens"].evidence
    assert evidence["client"]["sent"] == {one: 4, two: 4}
    assert evidence["engine_tokens"] == dict.fromkeys(names, run.cell.osl)
    before = scrape(server).by_engine(GENERATED)
    generate(server, server.model, tokens=4, timeout=30)  # at every address
    after = scrape(server).by_engine(GENERATED)
    assert sum(after.values()) - sum(before.values()) == 8


def test_an_engine_that_is_given_nothing_is_named_with_its_address(
    servers: dict[str, Running], worker: BenchWorker, tmp_path: Path
) -> None:
    starved = servers["starved"].url
    run = measured(attached(servers["one"].url, starved), worker, tmp_path)
    (broken,) = check(run)
    assert broken.rule == "engine-starved"
    assert broken.evidence.endswith(f"engine 2@{short(starved)} 0.0%")


def test_a_server_that_died_spoils_the_cell_and_is_named(
    servers: dict[str, Running], worker: BenchWorker, tmp_path: Path
) -> None:
    one, two = servers["one"].url, servers["two"].url
    server = attached(one, two)
    servers["two"].process.kill()
    servers["two"].process.wait()
    told = {broken.rule: broken.evidence for broken in check(measured(server, worker, tmp_path))}
    assert told["warm-up-failed"].startswith("4 of 8 warm-up requests failed")
    assert told["requests-failed"].startswith("4 requests failed; the first: Cannot connect to")
    assert short(two) in told["requests-failed"]
    assert f"could not be read at {short(two)}" in told["metrics-missing"]
    with pytest.raises(ServerError, match=f"no vLLM answers at {two}"):
        attached(one, two)
    with pytest.raises(ServerError, match="no generation") as caught:
        generate(server, server.model, timeout=30)
    assert two in (caught.value.asked or "")


def test_metrics_may_be_elsewhere(servers: dict[str, Running]) -> None:
    one, starved = servers["one"].url, servers["starved"].url
    server = attached(one, metrics=(one, starved))  # as behind a gateway
    assert server.several is not None
    assert server.several.bases == (one,)
    assert len(scrape(server).by_engine(GENERATED)) == 8
    assert attached(one).several is None


@pytest.mark.parametrize(
    ("other", "told"),
    [("another layout", "of different layouts: .* is dp8-ep; .* is dp4-ep"),
     ("another model", "of different models: .* is base of ")],
)  # fmt: skip
def test_servers_that_are_not_alike(servers: dict[str, Running], other: str, told: str) -> None:
    with pytest.raises(ServerError, match=told):
        attached(servers["one"].url, servers[other].url)


def test_versions_and_metrics_of_strangers(
    servers: dict[str, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = servers["one"].url, servers["starved"].url
    with pytest.raises(ServerError, match=f"{one}/v2/metrics has no metrics of vLLM"):
        attached(one, metrics=(one, f"{one}/v2"))
    versions = {one: "0.32.0", other: "0.31.0"}
    monkeypatch.setattr("fixtures.attach._identity", lambda url, key: (versions[url], {"id": "m"}))
    with pytest.raises(ServerError, match=r"of different versions: .* is 0\.31\.0"):
        attached(one, other)


def test_what_no_address_is_given_to() -> None:
    assert addresses_of(SimpleNamespace(base_url=[], metrics_url=[])) is None
