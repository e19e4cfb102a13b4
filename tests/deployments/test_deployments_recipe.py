"""Every row of the translation table, and the rows that matter most in literal words."""

from __future__ import annotations

import importlib.util
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from acceptance.deployments.intents import BEYOND, FIRST, TABLE, Row
from acceptance.deployments.recipe import NEWEST, check_covered, covers, release, translate
from acceptance.deployments.schema import REHEARSAL_ONLY, Deployment, Options, Profile
from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Deployment]

# First and last minor version whose release knows the name: looked up in the released packages
# 0.12.0, 0.13.0 … 0.33.0 (keys of vllm/envs.py, arguments in vllm/engine/arg_utils.py and in
# cli_args.py of the entry points), apart from the table that is tested with it.
RELEASED = {
    "VLLM_ATTENTION_BACKEND": (12, 14),
    "VLLM_ALL2ALL_BACKEND": (12, 15),
    "VLLM_USE_FLASHINFER_MOE_FP4": (12, 23),
    "VLLM_USE_FLASHINFER_MOE_FP8": (12, 23),
    "VLLM_FLASHINFER_MOE_BACKEND": (12, 23),
    "VLLM_USE_DEEP_GEMM": (12, 33),
    "VLLM_DEEP_GEMM_WARMUP": (25, 33),
    "VLLM_CPU_KVCACHE_SPACE": (12, 33),
    "VLLM_CPU_OMP_THREADS_BIND": (12, 33),
    "VLLM_ENGINE_READY_TIMEOUT_S": (14, 33),
    "--attention-backend": (13, 33),
    "--all2all-backend": (12, 33),
    "--moe-backend": (17, 33),
    "--shutdown-timeout": (18, 33),
    "--fail-on-environ-validation": (17, 33),
    "--enforce-eager": (12, 33),
    "--load-format": (12, 33),
    "--kv-cache-dtype": (12, 33),
    "--gpu-memory-utilization": (12, 33),
    "--max-model-len": (12, 33),
    "--max-num-batched-tokens": (12, 33),
    "--max-num-seqs": (12, 33),
    "--no-enable-prefix-caching": (12, 33),
    "--reasoning-parser": (12, 33),
    "--tool-call-parser": (12, 33),
    "--enable-auto-tool-choice": (12, 33),
    "--chat-template": (12, 33),
}
SAMPLES = {
    "gpu_memory_utilization": "0.95",
    "cpu_threads_bind": "0|1",
    "kv_cache_gib": "2",
    "shutdown_timeout": "7",
    "engine_ready_timeout": "1234",
    "environ_validation": "true",
    "max_model_len": "4096",
    "max_num_batched_tokens": "8192",
    "max_num_seqs": "64",
    "reasoning_parser": "deepseek_r1",
    "tool_call_parser": "deepseek_v3",
    "chat_template": "/site/r1-with-tools.jinja",
}
ROWS = [
    pytest.param(row, value, id=f"{row.intent}-{value}-{row.since}-{row.until}-{row.only}")
    for row in TABLE
    for value in (row.value.split("|") if row.value != "*" else [SAMPLES[row.intent]])
]


def minor(text: str) -> int:
    return int(text.split(".")[1])


def made_for(make: Make, row: Row, value: str) -> Deployment:
    """A deployment whose hardware and precision the row is for, with its intent set to value."""
    words = [word.split("|")[0] for word in row.only.split()]
    architecture = next((w for w in words if w in ("hopper", "blackwell", "cpu")), "hopper")
    precision = next((w for w in words if w.startswith("fp")), "fp8")
    lane = "slice" if row.intent == "load_format" else None
    precision = "bf16" if architecture == "cpu" else precision
    data = make(architecture, precision, lane=lane).model_dump()
    if row.intent == "engine_ready_timeout":
        data["budgets"]["start"] = float(value)
    elif row.intent in Options.model_fields:
        parsed = Options.model_validate({row.intent: value}, strict=False)
        data["options"][row.intent] = getattr(parsed, row.intent)
    return Deployment.model_validate(data)


@pytest.mark.parametrize(("row", "value"), ROWS)
def test_a_row_is_used_from_its_first_to_its_last_version(make: Make, row: Row, value: str) -> None:
    deployment = made_for(make, row, value)
    last = minor(row.until) - 1
    for version in (f"{row.since}.0", f"0.{last}.9", f"0.{last}.1+cu130", f"{row.since}.0.post2"):
        told = translate(deployment, Profile.BENCHMARK, Version(version))
        flags = tuple(flag.replace("{}", value) for flag in row.flags)
        assert " ".join(flags) in " ".join(told.flags)
        for name, text in row.env:
            assert told.env[name] == text.replace("{}", value)
        assert not row.note or row.note in told.notes


@pytest.mark.parametrize(("row", "value"), ROWS)
def test_a_row_names_only_what_each_of_its_versions_knows(row: Row, value: str) -> None:
    for name in [n for n, _ in row.env] + [f for f in row.flags if f.startswith("--")]:
        first, last = RELEASED[name]
        assert first <= minor(row.since), name
        assert minor(row.until) - 1 <= last, name
    assert minor(FIRST) <= minor(row.since) < minor(row.until) <= minor(BEYOND)


def test_no_two_rows_are_for_the_same() -> None:
    for one, other in combinations(TABLE, 2):
        if one.intent != other.intent:
            continue
        values = set(one.value.split("|")) & set(other.value.split("|"))
        versions = minor(one.since) < minor(other.until) and minor(other.since) < minor(one.until)
        hardware = all(
            set(mine.split("|")) & set(theirs.split("|"))
            for mine, theirs in zip(one.only.split(), other.only.split(), strict=False)
        )
        assert not (values and versions and hardware), (one, other)


def test_every_option_has_rows() -> None:
    no_words = {"data_parallel_plugin"}  # not told to vLLM: the launcher registers it
    assert Options.model_fields.keys() - no_words <= {row.intent for row in TABLE}
    assert no_words < set(REHEARSAL_ONLY)


def test_the_installed_vllm_knows_the_names() -> None:
    """Holds RELEASED against the source of a vLLM that is really here (not imported)."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("no vLLM is installed beside these tests")
    from acceptance.deployments.installed import find_vllm

    package = Path(spec.origin).parent
    files = [package / "envs.py", package / "engine" / "arg_utils.py"]
    files += (package / "entrypoints").rglob("cli_args.py")
    source = "".join(file.read_text() for file in files)
    for name, (first, last) in RELEASED.items():
        is_there = f'"{name.replace("--no-", "--")}"' in source
        if name == "--fail-on-environ-validation":
            is_there = "fail_on_environ_validation" in source  # made from the field's name
        elif "tool-c" in name or "chat" in name:
            is_there = f"{name.strip('-').replace('-', '_')}: " in source  # likewise
        assert is_there is (first <= release(find_vllm().version).minor <= last), name


LITERAL = [
    # intent in the TOML, hardware, version, environment, flags
    ({"moe_backend": "flashinfer"}, "blackwell fp4", "0.12.0", "VLLM_USE_FLASHINFER_MOE_FP4=1", ""),
    ({"moe_backend": "flashinfer"}, "blackwell fp4", "0.22.1", "VLLM_USE_FLASHINFER_MOE_FP4=1", ""),
    (
        {"moe_backend": "flashinfer"},
        "blackwell fp4",
        "0.23.0",
        "",
        "--moe-backend flashinfer_trtllm",
    ),
    (
        {"moe_backend": "flashinfer"},
        "blackwell fp4",
        "0.33.0",
        "",
        "--moe-backend flashinfer_trtllm",
    ),
    ({"moe_backend": "flashinfer"}, "blackwell fp8", "0.22.1", "VLLM_USE_FLASHINFER_MOE_FP8=1", ""),
    (
        {"moe_backend": "flashinfer"},
        "blackwell fp8",
        "0.32.0",
        "",
        "--moe-backend flashinfer_trtllm",
    ),
    (
        {"moe_backend": "flashinfer"},
        "hopper fp8",
        "0.32.0",
        "",
        "--moe-backend flashinfer_cutlass",
    ),
    (
        {"moe_backend": "flashinfer_cutlass"},
        "blackwell fp4",
        "0.16.0",
        "VLLM_USE_FLASHINFER_MOE_FP4=1 VLLM_FLASHINFER_MOE_BACKEND=throughput",
        "",
    ),
    ({"moe_backend": "marlin"}, "hopper fp4", "0.32.0", "", "--moe-backend marlin"),
    (
        {"attention_backend": "CUTLASS_MLA_VLLM_V1"},
        "blackwell fp4",
        "0.14.1",
        "VLLM_ATTENTION_BACKEND=CUTLASS_MLA",
        "",
    ),
    (
        {"attention_backend": "CUTLASS_MLA_VLLM_V1"},
        "blackwell fp4",
        "0.15.0",
        "",
        "--attention-backend CUTLASS_MLA",
    ),
    (
        {"attention_backend": "flashmla"},
        "hopper fp8",
        "0.33.0",
        "",
        "--attention-backend FLASHMLA",
    ),
    (
        {"all2all_backend": "deepep_low_latency"},
        "hopper fp8",
        "0.14.0",
        "VLLM_ALL2ALL_BACKEND=deepep_low_latency",
        "",
    ),
    (
        {"all2all_backend": "deepep_low_latency"},
        "hopper fp8",
        "0.15.0",
        "",
        "--all2all-backend deepep_low_latency",
    ),
    ({"deep_gemm": True}, "hopper fp8", "0.12.0", "VLLM_USE_DEEP_GEMM=1", ""),
    ({"deep_gemm": False}, "hopper fp8", "0.33.0", "VLLM_USE_DEEP_GEMM=0", ""),
    (
        {"gpu_memory_utilization": 0.95},
        "hopper fp8",
        "0.12.0",
        "",
        "--gpu-memory-utilization 0.95",
    ),
    ({"kv_cache_dtype": "fp8"}, "blackwell fp4", "0.12.0", "", "--kv-cache-dtype fp8"),
    ({"shutdown_timeout": 20}, "hopper fp8", "0.18.0", "", "--shutdown-timeout 20"),
    (
        {"reasoning_parser": "deepseek_r1", "tool_call_parser": "deepseek_v3"},
        "hopper fp8",
        "0.12.0",
        "",
        "--reasoning-parser deepseek_r1 --tool-call-parser deepseek_v3 --enable-auto-tool-choice",
    ),
    (
        {"kv_cache_gib": 1.0, "cpu_threads_bind": "0|1", "enforce_eager": True},
        "cpu bf16",
        "0.32.0+cpu",
        "VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=0|1",
        "--enforce-eager",
    ),
]


@pytest.mark.parametrize(("options", "hardware", "version", "env", "flags"), LITERAL)
def test_literal_words(
    make: Make, options: dict[str, object], hardware: str, version: str, env: str, flags: str
) -> None:
    deployment = make(*hardware.split(), **options)
    told = translate(deployment, Profile.SERVING, Version(version))
    plain = translate(make(*hardware.split()), Profile.SERVING, Version(version))
    new_env = {n: v for n, v in told.env.items() if n not in plain.env}
    assert new_env == dict(word.split("=", 1) for word in env.split())
    assert flags in " ".join(told.flags)
    for flag in ("--moe-backend", "--attention-backend", "--all2all-backend"):
        assert (flag in told.flags) is (flag in flags.split())


def test_what_the_suite_adds_by_itself(make: Make) -> None:
    old = translate(make(), Profile.BENCHMARK, Version("0.12.0"))
    assert old.flags == ("--no-enable-prefix-caching",)
    assert old.env == {}
    assert len(old.notes) == 3
    new = translate(make(), Profile.SERVING, Version(NEWEST))
    assert new.flags == ("--shutdown-timeout", "5", "--fail-on-environ-validation")
    assert new.env == {"VLLM_ENGINE_READY_TIMEOUT_S": "3600"}
    assert new.notes == ()
    quick = make(budgets={"start": 600.0})  # vLLM's own limit suffices
    assert translate(quick, Profile.SERVING, Version(NEWEST)).env == {}


CANNOT = [
    ({"all2all_backend": "pplx"}, "hopper fp8", "0.17.0", "it was removed in vLLM 0.17"),
    ({"all2all_backend": "naive"}, "hopper fp8", "0.32.0", "it was removed in vLLM 0.19"),
    ({"all2all_backend": "deepep_v2"}, "hopper fp8", "0.23.0", "it came with vLLM 0.24"),
    ({"all2all_backend": "carrier_pigeon"}, "hopper fp8", "0.32.0", "nothing of that name"),
    ({"moe_backend": "deep_gemm"}, "hopper fp8", "0.16.0", "it came with vLLM 0.17"),
    ({"moe_backend": "flashinfer"}, "hopper fp4", "0.32.0", "it is not for fp4 on hopper"),
    ({"moe_backend": "flashinfer_trtllm"}, "hopper fp8", "0.32.0", "it is not for fp8 on hopper"),
    ({"moe_backend": "flashinfer"}, "cpu bf16", "0.32.0", "it is not for bf16 on cpu"),
    ({"moe_backend": "flash_infer"}, "blackwell fp4", "0.32.0", "did you mean flashinfer?"),
    ({"attention_backend": "CUTLASS_MLA"}, "hopper fp8", "0.32.0", "it is not for fp8 on hopper"),
    ({"attention_backend": "FLASH_ATTN"}, "hopper fp8", "0.32.0", "did you mean FLASH_ATTN_MLA?"),
    ({"attention_backend": "TOKENSPEED_MLA"}, "blackwell fp4", "0.20.0", "came with vLLM 0.21"),
    ({"kv_cache_dtype": "bfloat16"}, "hopper fp8", "0.14.0", "it came with vLLM 0.15"),
    ({"kv_cache_dtype": "fp8"}, "cpu bf16", "0.32.0", "it is not for bf16 on cpu"),
    ({"deep_gemm": True}, "cpu bf16", "0.32.0", "it is not for bf16 on cpu"),
]


@pytest.mark.parametrize(("options", "hardware", "version", "why"), CANNOT)
def test_what_a_version_cannot_do_is_refused(
    make: Make, options: dict[str, object], hardware: str, version: str, why: str
) -> None:
    with pytest.raises(InputError) as caught:
        translate(make(*hardware.split(), **options), Profile.SERVING, Version(version))
    ((name, value),) = options.items()
    told = str(caught.value)
    text = str(value).lower() if isinstance(value, bool) else value
    assert f"made: vLLM {version} cannot do {name} = {text}: " in told
    assert why in told
    assert f"leave {name} out" in caught.value.hint


@pytest.mark.parametrize("version", ["0.11.2", "0.12.0", "0.33.0", "0.33.9+cu130", "0.34.0", "1.0"])
def test_only_covered_versions_are_launched(make: Make, version: str) -> None:
    if version.startswith(("0.12", "0.33")):
        translate(make(), Profile.SERVING, Version(version))
        return
    with pytest.raises(InputError, match=f"vLLM {version} is outside") as caught:
        check_covered(Version(version))
    assert "--base-url" in caught.value.hint
    with pytest.raises(InputError, match=f"vLLM {version} is outside"):
        translate(make(), Profile.SERVING, Version(version))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("0.32.0+cpu", "0.32.0"),
        ("0.12.0.post2", "0.12.0"),
        ("0.15.0rc1", "0.15.0"),
        ("0.33.1.dev12+gabc1234.cu130", "0.33.1"),
    ],
)
def test_local_and_unfinished_versions_count_as_their_release(text: str, plain: str) -> None:
    assert release(Version(text)) == Version(plain)
    row = Row("x", since=".".join(plain.split(".")[:2]), until="0.34")
    assert covers(row, Version(text))


def test_options_that_reach_less_far_than_they_say_are_remarked(make: Make) -> None:
    told = translate(
        make(
            "blackwell",
            "fp8",
            moe_backend="flashinfer",
            deep_gemm=True,
            all2all_backend="allgather_reducescatter",
            attention_backend="CUTLASS_MLA_VLLM_V1",
        ),
        Profile.SERVING,
        Version("0.32.0"),
    )
    notes = "\n".join(told.notes)
    assert "the recipe names it for runs without FlashInfer" in notes
    assert "no effect without data parallelism" in notes
    assert "CUTLASS_MLA_VLLM_V1 is read as CUTLASS_MLA" in notes
