"""From intents to the variables and flags of the vLLM that is installed (0.12 to 0.33)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches

from packaging.version import Version

from acceptance.deployments.intents import BEYOND, FIRST, TABLE, Row
from acceptance.deployments.schema import Deployment, Profile
from acceptance.errors import InputError

OLD_SUFFIX = "_VLLM_V1"  # the recipe's CUTLASS_MLA_VLLM_V1 is today's CUTLASS_MLA
NEWEST = "0.33.0"  # what a plan assumes where no vLLM is installed
VLLM_READY_TIMEOUT = 600  # seconds: vLLM's own default


@dataclass(frozen=True)
class Translation:
    """flags: after the recipe's own words. env: variables to set. notes: what a reader of the
    plan must know, such as something that this version lacks."""

    flags: tuple[str, ...]
    env: dict[str, str]
    notes: tuple[str, ...]


def translate(deployment: Deployment, profile: Profile, version: Version) -> Translation:
    """What tells this vLLM version the deployment's options.

    Raises InputError for a version outside the table, and for an option that the version cannot
    do on this hardware and precision: naming deployment, option, version and what to do.
    """
    check_covered(version)
    flags: list[str] = []
    env: dict[str, str] = {}
    notes: list[str] = []
    for intent, value in intents(deployment, profile).items():
        row = _row(deployment, intent, value, version)
        flags += [flag.replace("{}", value) for flag in row.flags]
        env |= {name: text.replace("{}", value) for name, text in row.env}
        if row.note:
            notes.append(row.note)
    return Translation(tuple(flags), env, (*notes, *_remarks(deployment)))


def check_covered(version: Version) -> None:
    """Raises InputError for a version that the table does not know."""
    if not Version(FIRST) <= release(version) < Version(BEYOND):
        raise InputError(
            f"vLLM {version} is outside what this suite can launch: {FIRST} up to, not "
            f"including, {BEYOND}",
            hint="install a vLLM in that range, or attach to a running server with --base-url",
        )


def release(version: Version) -> Version:
    """Without local, development and pre-release parts: 0.32.0+cpu and 0.32.0rc1 are 0.32.0."""
    return Version(version.base_version)


def intents(deployment: Deployment, profile: Profile) -> dict[str, str]:
    """Everything that vLLM has to be told beyond model and layout, as intent and value in text,
    in the order of the command line. What is left to vLLM is absent."""
    options = deployment.options
    wanted = {
        "max_model_len": options.max_model_len,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "max_num_seqs": options.max_num_seqs,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_cache_dtype": options.kv_cache_dtype,
        "attention_backend": _today(options.attention_backend),
        "moe_backend": options.moe_backend,
        "deep_gemm": options.deep_gemm,
        "all2all_backend": options.all2all_backend,
        "enforce_eager": options.enforce_eager or None,
        "load_format": options.load_format,
        "deep_gemm_warmup": options.deep_gemm_warmup,
        "reasoning_parser": options.reasoning_parser,
        "tool_call_parser": options.tool_call_parser,
        "chat_template": options.chat_template,
        "prefix_caching": "off" if profile is Profile.BENCHMARK else None,
        "kv_cache_gib": options.kv_cache_gib,
        "cpu_threads_bind": options.cpu_threads_bind,
        "shutdown_timeout": options.shutdown_timeout,
        "engine_ready_timeout": _longer_than_default(deployment.budgets.start),
        "environ_validation": True,
    }
    return {intent: _text(value) for intent, value in wanted.items() if value is not None}


def matching_rows(deployment: Deployment, intent: str) -> list[Row]:
    """Rows of an intent for this hardware and precision, of any version."""
    return [row for row in TABLE if row.intent == intent and _suits(row, deployment.markers)]


def covers(row: Row, version: Version) -> bool:
    """Whether a row is for this version."""
    return Version(row.since) <= release(version) < Version(row.until)


def takes(row: Row, value: str) -> bool:
    """Whether a row is for this value."""
    return row.value == "*" or value in row.value.split("|")


def _suits(row: Row, markers: frozenset[str]) -> bool:
    return all(markers.intersection(word.split("|")) for word in row.only.split())


def _row(deployment: Deployment, intent: str, value: str, version: Version) -> Row:
    rows = [row for row in matching_rows(deployment, intent) if takes(row, value)]
    for row in rows:
        if covers(row, version):
            return row
    raise _refusal(deployment, intent, value, version, rows)


def _refusal(
    deployment: Deployment, intent: str, value: str, version: Version, rows: list[Row]
) -> InputError:
    """rows: those for the value on this hardware, all of other versions."""
    known = [row for row in matching_rows(deployment, intent) if covers(row, version)]
    values = [text for row in known for text in row.value.split("|")]
    hardware = f"{deployment.precision} on {deployment.gpus.architecture}"
    later = [row for row in rows if release(version) < Version(row.since)]
    if later:
        why = f"it came with vLLM {later[0].since}"
    elif rows:
        why = f"it was removed in vLLM {rows[-1].until}"
    elif any(row.intent == intent and takes(row, value) for row in TABLE):
        why = f"it is not for {hardware}"
    else:
        why = f"nothing of that name is known for {hardware}"
    close = get_close_matches(value, values, n=1)
    choice = f"did you mean {close[0]}? " if close else ""
    choice += f"this version takes {', '.join(values)}, " if values else ""
    return InputError(
        f"{deployment.name}: vLLM {version} cannot do {intent} = {value}: {why}",
        asked=f"telling vLLM {version} the option {intent}",
        hint=f"{choice}or leave {intent} out and vLLM decides",
    )


def _remarks(deployment: Deployment) -> list[str]:
    """Options that are accepted but reach less far than their name says."""
    options, remarks = deployment.options, []
    moe = options.moe_backend
    if options.deep_gemm and moe and moe != "deep_gemm":
        remarks.append(
            f"deep_gemm has no say in the experts' kernels beside moe_backend = {moe}; the "
            "recipe names it for runs without FlashInfer"
        )
    if options.all2all_backend and deployment.layout.data == 1:
        remarks.append("all2all_backend has no effect without data parallelism")
    backend = options.attention_backend
    if backend and _today(backend) != backend:
        remarks.append(f"attention_backend {backend} is read as {_today(backend)}")
    return remarks


def _today(backend: str | None) -> str | None:
    return backend.upper().removesuffix(OLD_SUFFIX) if backend else None


def _longer_than_default(start: float) -> int | None:
    return math.ceil(start) if start > VLLM_READY_TIMEOUT else None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
