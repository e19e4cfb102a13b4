"""The live configuration: read from a server, compared with what was asked, each difference
caught by the check that looks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from conformance_world import World, checks, name_of
from fake_vllm import CACHE, MODEL
from packaging.version import Version

from acceptance.deployments.load import load_deployments, with_options
from acceptance.deployments.schema import Profile
from acceptance.errors import ObservationError
from acceptance.serving.differences import compare, differences, same_version
from acceptance.serving.facts import Experts, Facts
from acceptance.serving.live import engine_caches, parse_fingerprint, read_live
from acceptance.serving.metrics import parse
from fixtures.judging import OptionalSkip
from suites.conformance import test_live_config as config

if TYPE_CHECKING:
    from collections.abc import Callable

H200 = load_deployments()["fp8-8xh200-dp-ep"]


def _cache(world: World, **labels: str) -> None:
    world.twin.engines = [{**CACHE, **labels}]


def _ask(world: World, *options: str) -> None:
    world.deployment = with_options(world.deployment, list(options))


def _without(world: World, label: str) -> None:
    world.twin.engines = [{k: v for k, v in CACHE.items() if k != label}]


def _facts(world: World, **changes: object) -> None:
    world.facts = replace(world.facts, **changes)  # type: ignore[arg-type]


def _set(name: str, value: object) -> Callable[[World], None]:
    return lambda world: setattr(world.twin, name, value)


def _both(*alter: Callable[[World], None]) -> Callable[[World], None]:
    def altering(world: World) -> None:
        for one in alter:
            one(world)

    return altering


@dataclass(frozen=True)
class Case:
    """A server or a wish that differs, and the check that must say so."""

    check: Callable[..., None]
    why: str
    alter: Callable[[World], None]

    def __str__(self) -> str:
        return f"{self.check.__name__}: {self.why}"


OLDER = "vllm-0.31.0-tp2-ep-0a1b2c3d"
BAD_SHARE = {0: Experts(0, 2, "linear", 16, 16)}
OTHER_SIZE = {0: Experts(0, 4, "linear", 4, 16)}
CASES = (
    Case(config.test_version, "older", _set("version", "0.31.0")),
    Case(config.test_version, "no version", _set("version", "unknown")),
    Case(config.test_fingerprint_version, "older", _set("fingerprint", OLDER)),
    Case(config.test_fingerprint_version, "custom", _set("fingerprint", "prod-7")),
    Case(config.test_layout, "no EP", _set("fingerprint", "vllm-0.32.0-tp2-0a1b2c3d")),
    Case(config.test_layout, "DP", _set("fingerprint", "vllm-0.32.0-dp2-ep-0a1b2c3d")),
    Case(config.test_layout, "one rank", _set("fingerprint", "vllm-0.32.0-0a1b2c3d")),
    Case(
        config.test_layout,
        "by the log only",
        _both(lambda w: _facts(w, experts={}), _set("fingerprint", None)),
    ),
    Case(
        config.test_layout,
        "log against fingerprint",
        lambda w: _facts(w, engine={**w.facts.engine, "tensor_parallel_size": "1"}),
    ),
    Case(
        config.test_layout,
        "nobody tells",
        _both(lambda w: _facts(w, engine={}), _set("fingerprint", None)),
    ),
    Case(config.test_expert_parallelism, "off", lambda w: _facts(w, experts={})),
    Case(config.test_expert_parallelism, "all on each", lambda w: _facts(w, experts=BAD_SHARE)),
    Case(config.test_expert_parallelism, "4 ranks", lambda w: _facts(w, experts=OTHER_SIZE)),
    Case(
        config.test_served_models,
        "one beside it",
        _set("models", [MODEL, "adapter"]),
    ),
    Case(config.test_max_model_len, "shorter", _set("max_model_len", 1024)),
    Case(config.test_max_model_len, "not told", lambda w: w.twin.breaks.add("length-not-told")),
    Case(config.test_engines, "two", _set("engines", [CACHE, CACHE])),
    Case(config.test_prefix_caching, "on", lambda w: _cache(w, enable_prefix_caching="True")),
    Case(config.test_prefix_caching, "not told", lambda w: _without(w, "enable_prefix_caching")),
    Case(
        config.test_prefix_caching,
        "on in one engine",
        _set("engines", [CACHE, {**CACHE, "enable_prefix_caching": "True"}]),
    ),
    Case(config.test_kv_capacity, "not told", lambda w: _cache(w, kv_cache_size_tokens="None")),
    Case(config.test_kv_capacity, "none", lambda w: _cache(w, kv_cache_size_tokens="0")),
    Case(config.test_kv_cache_bytes, "half", lambda w: _cache(w, kv_cache_memory_bytes="5")),
    Case(config.test_kv_cache_bytes, "none", lambda w: _without(w, "kv_cache_memory_bytes")),
    Case(config.test_dtype, "float32", lambda w: _facts(w, engine={"dtype": "torch.float32"})),
    Case(config.test_dtype, "not told", lambda w: _facts(w, engine={})),
    Case(config.test_kv_cache_dtype, "another", lambda w: _ask(w, "kv_cache_dtype=bfloat16")),
    Case(
        config.test_gpu_memory_utilization,
        "vLLM's default",
        lambda w: _ask(w, "gpu_memory_utilization=0.95"),
    ),
    Case(config.test_attention_backend, "another", lambda w: _ask(w, "attention_backend=AMX_MLA")),
    Case(config.test_moe_backend, "another", lambda w: _ask(w, "moe_backend=marlin")),
    Case(
        config.test_moe_backend,
        "not told",
        _both(lambda w: _ask(w, "moe_backend=marlin"), lambda w: _facts(w, moe_backend="")),
    ),
    Case(config.test_enforce_eager, "graphs", lambda w: _ask(w, "enforce_eager=false")),
    Case(config.test_enforce_eager, "not told", lambda w: _facts(w, engine={})),
    Case(
        config.test_no_unknown_variable,
        "the recipe's",
        lambda w: _facts(w, unknown_variables=("VLLM_USE_FLASHINFER_MOE_FP4",)),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_caught(world: World, case: Case) -> None:
    case.alter(world)
    with pytest.raises(AssertionError):
        world.run(case.check)


def test_another_model_is_caught_before_it_is_asked(world: World) -> None:
    world.twin.model = "deepseek-ai/DeepSeek-V3"
    with pytest.raises(ObservationError, match="404"):
        world.run(config.test_served_models)


def test_every_check_of_the_live_configuration_is_shown_to_fail() -> None:
    shown = {case.check.__name__ for case in CASES}
    shown |= {"test_deep_gemm", "test_all2all_backend"}  # by test_backends_of_gpus
    mine = {c.__name__ for c in checks() if name_of(c).startswith("test_live_config.")}
    assert mine == shown


@pytest.mark.parametrize(
    ("options", "facts", "name", "agrees"),
    [
        (["moe_backend=flashinfer"], {"moe_backend": "FLASHINFER_CUTLASS"}, "moe_backend", True),
        (["moe_backend=flashinfer"], {"moe_backend": "TRITON"}, "moe_backend", False),
        (["moe_backend=cutlass"], {"moe_backend": "VLLM_CUTLASS"}, "moe_backend", True),
        (["moe_backend=deep_gemm"], {"moe_backend": "BATCHED_DEEPGEMM"}, "moe_backend", True),
        (["moe_backend=deep_gemm"], {"moe_backend": "DEEPGEMM_OF_OLD"}, "moe_backend", False),
        (["moe_backend=hpc"], {"moe_backend": "HPC"}, "moe_backend", True),
        (["deep_gemm=true"], {"moe_backend": "DEEPGEMM"}, "deep_gemm", True),
        (["deep_gemm=true"], {"moe_backend": "TRITON"}, "deep_gemm", False),
        (["deep_gemm=true"], {}, "deep_gemm", False),
        (["deep_gemm=false"], {"moe_backend": "TRITON"}, "deep_gemm", True),
        (["deep_gemm=false"], {"moe_backend": "DEEPGEMM"}, "deep_gemm", False),
        (["deep_gemm=false"], {}, "deep_gemm", False),
        (
            ["all2all_backend=deepep_low_latency"],
            {"all2all": "DeepEPLLAll2AllManager"},
            "all2all_backend",
            True,
        ),
        (
            ["all2all_backend=deepep_low_latency"],
            {"all2all": "AgRsAll2AllManager"},
            "all2all_backend",
            False,
        ),
        (["all2all_backend=pplx"], {"all2all": "AgRsAll2AllManager"}, "all2all_backend", False),
        (
            ["attention_backend=CUTLASS_MLA_VLLM_V1"],
            {"attention_backend": "CUTLASS_MLA"},
            "attention_backend",
            True,
        ),
    ],
)
def test_backends_of_gpus(
    world: World, options: list[str], facts: dict[str, str], name: str, agrees: bool
) -> None:
    """Words of the deployment against names in the log, for a deployment this host has not."""
    bare = with_options(H200, ["moe_backend=", "deep_gemm=", "all2all_backend="])
    live = replace(read_live(world.server), facts=Facts(**facts))  # type: ignore[arg-type]
    found = compare(with_options(bare, options), Profile.BENCHMARK, live)
    assert [c.agrees for c in found if c.name == name] == [agrees]


def test_no_all_to_all_is_asked_of_one_engine(world: World) -> None:
    _ask(world, "all2all_backend=allgather_reducescatter")
    with pytest.raises(OptionalSkip):
        world.run(config.test_all2all_backend)


def test_without_a_log_what_it_tells_is_unobservable(world: World) -> None:
    world.log = None
    with pytest.raises(pytest.skip.Exception, match="log is not observable"):
        world.run(config.test_expert_parallelism)
    world.run(config.test_layout)


def test_before_fingerprints_the_log_tells_the_layout(world: World) -> None:
    world.twin.fingerprint = None
    world.run(config.test_layout)
    with pytest.raises(OptionalSkip, match="no fingerprint"):
        world.run(config.test_fingerprint_version)


def test_the_version_of_an_attached_server_is_not_judged(world: World) -> None:
    world.launched = False
    with pytest.raises(OptionalSkip, match="was there before"):
        world.run(config.test_version)


def test_an_attached_server_may_serve_under_another_name(world: World) -> None:
    world.launched = False
    live = read_live(world.server)
    named = replace(live, models=(live.models[0].model_copy(update={"id": "r1", "root": "m"}),))
    asked = world.deployment.model_copy(update={"model": "m"})
    served = {c.name: c for c in compare(asked, Profile.BENCHMARK, named)}["served models"]
    assert served.agrees
    launched = compare(asked, Profile.BENCHMARK, named, Version("0.32.0"))
    assert not {c.name: c for c in launched}["served models"].agrees


def test_prefix_caching_by_profile(world: World) -> None:
    world.profile = Profile.SERVING
    with pytest.raises(OptionalSkip, match="MLA on CPU"):
        world.run(config.test_prefix_caching)
    live = read_live(world.server)
    served = {c.name: c for c in compare(H200, Profile.SERVING, live)}["prefix_caching"]
    assert (served.asked, served.live, served.agrees) == ("True", "False", False)


def test_a_healthy_server_has_no_differences(world: World) -> None:
    live = read_live(world.server)
    assert differences(world.deployment, world.profile, live, Version("0.32.0")) == ()


def test_two_engines_of_one_number_are_refused() -> None:
    lines = [f'vllm:cache_config_info{{engine="0",cache_dtype="{t}"}} 1.0' for t in ("fp8", "auto")]
    with pytest.raises(ObservationError, match="in two ways"):
        engine_caches(parse("\n".join(lines) + "\n"))


def test_a_server_that_does_not_answer_is_no_observation(world: World) -> None:
    world.twin.stop()
    with pytest.raises(ObservationError, match="does not answer"):
        read_live(world.server)


@pytest.mark.parametrize(
    ("text", "version", "layout"),
    [
        ("vllm-0.32.0-tp2-ep-6ec0ee58", "0.32.0", "tp2-ep"),
        ("vllm-0.32.0-dp8-ep-nohash", "0.32.0", "dp8-ep"),
        ("vllm-0.32.0+cu129-tp4-pp2-dp2-ep-0123abcd", "0.32.0+cu129", "tp4-pp2-dp2-ep"),
        ("vllm-0.25.1-12b135d8", "0.25.1", ""),
        ("vllm-0.32.0-tp2-ep", None, None),
        ("fp_44709d6fcb", None, None),
    ],
)
def test_fingerprints(text: str, version: str | None, layout: str | None) -> None:
    found = parse_fingerprint(text)
    assert (found.text, found.version, found.layout) == (text, version, layout)


@pytest.mark.parametrize(
    ("live", "installed", "same"),
    [
        ("0.32.0", "0.32.0", True),
        ("0.32.0", "0.32.0+cpu", True),
        ("0.32.0+cu129", "0.32.0+cu128", False),
        ("0.32.1", "0.32.0", False),
        ("0.32.0rc1", "0.32.0", False),
        ("dev", "0.32.0", False),
    ],
)
def test_versions(live: str, installed: str, same: bool) -> None:
    assert same_version(live, Version(installed)) is same
