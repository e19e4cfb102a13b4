"""The memory checks: a server whose memory and cache are as declared, and one fault each."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from proofs import broken, healthy
from suites_world import World, deployment

import suites.memory.test_memory as memory
from acceptance.errors import InputError, ObservationError
from acceptance.gpus.kv import GIB
from acceptance.gpus.probe import Unobservable
from acceptance.gpus.sampler import Extremes
from acceptance.judging.judgement import Outcome
from acceptance.serving.facts import Facts
from acceptance.serving.metrics import Metrics, parse
from acceptance.serving.server import Server, Startup
from fixtures.judging import OptionalSkip
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from pathlib import Path

# The rehearsal's checkpoint in vLLM 0.32: 1 GiB of bf16 cache, 3 layers of 576 values a token,
# blocks of 16, and 310,688 tokens told.
CONFIG = {
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "num_hidden_layers": 3,
    "torch_dtype": "bfloat16",
}
CACHE = {"cache_dtype": "auto", "block_size": "16", "kv_cache_size_tokens": "310688"}


def extremes(gib: float) -> Extremes:
    used = int(gib * GIB)
    return Extremes(
        samples=9, missed=0, peak_used=used, least_free=GIB, first_used=GIB, last_used=used
    )


def sampled(seen: Any) -> Any:
    """A MemorySampler that saw this."""
    return SimpleNamespace(extremes=lambda: seen)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Labels of each engine's vllm:cache_config_info, as /metrics of the server tells them."""
    engines = [{**CACHE, "engine": "0"}]

    def scrape(_: Server) -> Metrics:
        lines = []
        for labels in engines:
            told = ",".join(f'{name}="{value}"' for name, value in labels.items())
            lines.append(f"vllm:cache_config_info{{{told}}} 1.0\n")
        return parse("".join(lines))

    monkeypatch.setattr(memory, "scrape", scrape)
    return engines


@pytest.fixture
def server(world: World) -> Server:
    """The rehearsal's server, ready."""
    (world.run_dir / "config.json").write_text(json.dumps(CONFIG))
    return world.server(memory=sampled(extremes(5.0)))


class TestResident:
    """test_resident_memory_stays_in_budget."""

    @healthy(memory.test_resident_memory_stays_in_budget)
    def test_within_the_budget(self, world: World, server: Server) -> None:
        memory.test_resident_memory_stays_in_budget(server, world.deployment, world.judge)
        assert world.outcomes == {"resident_gib": Outcome.PASS}
        assert world.judged["resident_gib"].measurement.value == 5.0

    @broken(memory.test_resident_memory_stays_in_budget)
    def test_above_the_budget(self, world: World, server: Server) -> None:
        server.memory = sampled(extremes(12.5))
        with pytest.raises(JudgementFailed, match=r"12\.5 GiB, at most 12 GiB"):
            memory.test_resident_memory_stays_in_budget(server, world.deployment, world.judge)
        assert world.outcomes == {"resident_gib": Outcome.FAIL}

    @broken(memory.test_resident_memory_stays_in_budget)
    def test_that_nobody_could_see(self, world: World, server: Server) -> None:
        server.memory = sampled(Unobservable("no process of the tree is alive"))
        with pytest.raises(JudgementFailed, match="the value is missing"):
            memory.test_resident_memory_stays_in_budget(server, world.deployment, world.judge)
        assert world.outcomes == {"resident_gib": Outcome.INVALID}

    @broken(memory.test_resident_memory_stays_in_budget)
    def test_of_a_sampler_that_broke(self, world: World, server: Server) -> None:
        def broke() -> Extremes:
            raise ObservationError("Memory sampling broke")

        server.memory = SimpleNamespace(extremes=broke)  # type: ignore[assignment]
        with pytest.raises(ObservationError):
            memory.test_resident_memory_stays_in_budget(server, world.deployment, world.judge)

    def test_of_a_server_of_somebody_else(self, world: World, server: Server) -> None:
        server.memory = None
        with pytest.raises(pytest.skip.Exception, match="processes is not observable") as skip:
            memory.test_resident_memory_stays_in_budget(server, world.deployment, world.judge)
        assert not isinstance(skip.value, OptionalSkip)

    def test_without_a_budget(self, world: World, server: Server) -> None:
        world.deployment = deployment(memory={"resident_gib": None})
        with pytest.raises(OptionalSkip, match="declares no budget"):
            memory.test_resident_memory_stays_in_budget(server, world.deployment, world.judge)


class TestCapacity:
    """test_kv_cache_holds_what_its_bytes_allow."""

    @healthy(memory.test_kv_cache_holds_what_its_bytes_allow)
    @pytest.mark.parametrize("count", [1, 2])
    def test_tokens_follow_from_bytes(
        self, world: World, server: Server, metrics: list[dict[str, str]], count: int
    ) -> None:
        metrics[:] = [{**CACHE, "engine": str(number)} for number in range(count)]
        memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)
        assert [record.judgement.outcome for record in world.records] == [Outcome.PASS] * count

    @broken(memory.test_kv_cache_holds_what_its_bytes_allow)
    @pytest.mark.parametrize(
        "wrong",
        [
            {"kv_cache_size_tokens": "155344"},  # a cache of float32 that says it is bf16
            {"kv_cache_size_tokens": "621376"},  # a cache of fp8 that says it is bf16
            {"kv_cache_size_tokens": "305000"},  # 2 % of it lost
            {"kv_cache_size_tokens": "311000"},  # more than the bytes can hold
            {"kv_cache_size_tokens": "0"},
            {"cache_dtype": "fp8"},
        ],
        ids=str,
    )
    def test_tokens_do_not_follow(
        self, world: World, server: Server, metrics: list[dict[str, str]], wrong: dict[str, str]
    ) -> None:
        metrics[0].update(wrong)
        with pytest.raises(JudgementFailed):
            memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)
        assert world.outcomes == {"kv_cache_tokens_off": Outcome.FAIL}

    @broken(memory.test_kv_cache_holds_what_its_bytes_allow)
    def test_one_engine_of_two(
        self, world: World, server: Server, metrics: list[dict[str, str]]
    ) -> None:
        metrics.append({**CACHE, "engine": "1", "kv_cache_size_tokens": "200000"})
        with pytest.raises(JudgementFailed):
            memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)

    @broken(memory.test_kv_cache_holds_what_its_bytes_allow)
    def test_a_type_or_model_of_unknown_size(
        self, world: World, server: Server, metrics: list[dict[str, str]]
    ) -> None:
        metrics[0]["cache_dtype"] = "fp4_secret"
        with pytest.raises(InputError, match="not known"):
            memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)
        del metrics[0]["block_size"]
        with pytest.raises(ObservationError, match="block_size"):
            memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)

    @broken(memory.test_kv_cache_holds_what_its_bytes_allow)
    def test_no_metric(self, world: World, server: Server, metrics: list[dict[str, str]]) -> None:
        metrics.clear()
        with pytest.raises(ObservationError, match="cache_config_info"):
            memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)

    def test_bytes_from_the_log_of_each_rank(
        self, world: World, server: Server, metrics: list[dict[str, str]]
    ) -> None:
        """Where the size is left to vLLM, the rank that has least decides."""
        world.deployment = deployment(options={"kv_cache_gib": None})
        logged = {"Worker_DP0_TP0": 1.0, "Worker_DP0_TP1": 1.2, "Worker_DP1_TP0": 7.0}
        server.startup = Startup(facts=Facts(available_kv_gib=logged))
        memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)
        logged["Worker_DP0_TP0"] = 0.9
        with pytest.raises(JudgementFailed):
            memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)

    def test_tokens_from_the_log_where_the_metric_has_none(
        self, world: World, server: Server, metrics: list[dict[str, str]]
    ) -> None:
        del metrics[0]["kv_cache_size_tokens"]
        server.startup = Startup(facts=Facts(kv_cache_tokens={"EngineCore": 310_688}))
        memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)
        server.startup = Startup(facts=Facts(kv_cache_tokens={"EngineCore": 100_000}))
        with pytest.raises(JudgementFailed):
            memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)

    @pytest.mark.parametrize("missing", ["tokens", "bytes", "checkpoint"])
    def test_what_is_not_to_be_seen_is_skipped_and_required(
        self, world: World, server: Server, metrics: list[dict[str, str]], missing: str
    ) -> None:
        match missing:
            case "tokens":
                del metrics[0]["kv_cache_size_tokens"]
            case "bytes":
                world.deployment = deployment(options={"kv_cache_gib": None})
            case "checkpoint":
                server = replace(server, model_path="org/a-model-nobody-has")
        with pytest.raises(pytest.skip.Exception, match="is not observable") as skip:
            memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)
        assert not isinstance(skip.value, OptionalSkip)
        assert world.records == []

    def test_the_config_of_a_hub_model_is_found_in_the_hub_s_cache(
        self,
        world: World,
        server: Server,
        metrics: list[dict[str, str]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        snapshot = tmp_path / "hub" / "models--org--model" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(CONFIG))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        server = replace(server, model_path="org/model")
        memory.test_kv_cache_holds_what_its_bytes_allow(server, world.deployment, world.judge)
        assert world.outcomes == {"kv_cache_tokens_off": Outcome.PASS}


class TestConcurrency:
    """test_kv_cache_holds_declared_concurrency."""

    @healthy(memory.test_kv_cache_holds_declared_concurrency)
    def test_enough(self, world: World, server: Server, metrics: list[dict[str, str]]) -> None:
        world.deployment = deployment("fp8-8xh200-tp-ep", memory={"max_concurrency_floor": 4.0})
        memory.test_kv_cache_holds_declared_concurrency(server, world.deployment, world.judge)
        assert world.outcomes == {"max_concurrency": Outcome.PASS}

    @broken(memory.test_kv_cache_holds_declared_concurrency)
    def test_too_little(self, world: World, server: Server, metrics: list[dict[str, str]]) -> None:
        world.deployment = deployment("fp8-8xh200-tp-ep", memory={"max_concurrency_floor": 5.0})
        with pytest.raises(JudgementFailed, match=r"4\.74\d+ requests, at least 5 requests"):
            memory.test_kv_cache_holds_declared_concurrency(server, world.deployment, world.judge)
        assert world.outcomes == {"max_concurrency": Outcome.FAIL}

    @broken(memory.test_kv_cache_holds_declared_concurrency)
    def test_one_engine_of_two(
        self, world: World, server: Server, metrics: list[dict[str, str]]
    ) -> None:
        world.deployment = deployment(memory={"max_concurrency_floor": 8.0})
        metrics.append({**CACHE, "engine": "1", "kv_cache_size_tokens": "16000"})
        with pytest.raises(JudgementFailed):
            memory.test_kv_cache_holds_declared_concurrency(server, world.deployment, world.judge)

    def test_length_from_the_log_where_it_is_left_to_vllm(
        self, world: World, server: Server, metrics: list[dict[str, str]]
    ) -> None:
        memory_floor = {"max_concurrency_floor": 2.0}
        world.deployment = deployment(options={"max_model_len": None}, memory=memory_floor)
        server.startup = Startup(facts=Facts(concurrency_length=155_344))
        memory.test_kv_cache_holds_declared_concurrency(server, world.deployment, world.judge)
        server.startup = Startup()
        with pytest.raises(ObservationError, match="max_model_len is not known"):
            memory.test_kv_cache_holds_declared_concurrency(server, world.deployment, world.judge)

    def test_without_a_floor(self, world: World, server: Server) -> None:
        with pytest.raises(OptionalSkip, match="declares no floor"):
            memory.test_kv_cache_holds_declared_concurrency(server, world.deployment, world.judge)
