"""What was asked of a server against what it says it is, one comparison for each thing asked.

A configuration that is not what it says on the command line is a class of failures of its own:
variables and flags that a version no longer reads are passed over in silence (vllm#50292).
Pure: everything it needs was read before (see live.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from acceptance.deployments.recipe import intents
from acceptance.deployments.schema import Lane, Precision, Profile
from acceptance.serving.kernels import is_all2all, is_moe_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.facts import Facts
    from acceptance.serving.live import LiveConfig

GIB = 2**30
NONE = "none"
COMPUTED_IN = "bfloat16"  # whatever the weights are stored in: the checkpoints' own torch_dtype


@dataclass(frozen=True)
class Comparison:
    """asked, live: for people. live is None where the server does not tell, which never agrees.
    observable: False where the witness itself (the log) is out of reach."""

    name: str
    asked: str
    live: str | None
    agrees: bool
    observable: bool = True


def compare(
    deployment: Deployment, profile: Profile, live: LiveConfig, installed: Version | None = None
) -> tuple[Comparison, ...]:
    """Everything that was asked for; what the deployment leaves to vLLM is absent.

    installed: the vLLM that was launched; None for a server of somebody else's.
    """
    return (
        *_identity(deployment, live, installed),
        *_engines(deployment, profile, live),
        *_from_log(deployment, live.facts),
    )


def differences(
    deployment: Deployment, profile: Profile, live: LiveConfig, installed: Version | None = None
) -> tuple[Comparison, ...]:
    """The comparisons that do not agree; empty when the server is the one that was asked for."""
    return tuple(c for c in compare(deployment, profile, live, installed) if not c.agrees)


def _equal(name: str, asked: object, live: object | None) -> Comparison:
    """None, and a text that lists several values, equal nothing that is asked."""
    said = None if live is None else str(live)
    return Comparison(name, str(asked), said, said == str(asked))


def _identity(
    deployment: Deployment, live: LiveConfig, installed: Version | None
) -> Iterator[Comparison]:
    if installed is not None:
        yield Comparison(
            "version", str(installed), live.version, same_version(live.version, installed)
        )
    if live.fingerprint is not None:
        yield _equal("version in fingerprint", live.version, live.fingerprint.version)
    yield _layout(deployment, live)
    yield _served(deployment, live, ours=installed is not None)
    if deployment.options.max_model_len is not None:
        lengths = {model.id: model.max_model_len for model in live.models}
        yield _equal("max_model_len", deployment.options.max_model_len, _common(lengths))


def same_version(live: str, installed: Version) -> bool:
    """Whether both name one release. The build (+cpu, +cu129) counts where both have it: a
    package's metadata may leave it out."""
    try:
        served = Version(live)
    except InvalidVersion:
        return False
    if served.local and installed.local:
        return served == installed
    return served.public == installed.public


def _layout(deployment: Deployment, live: LiveConfig) -> Comparison:
    """By the fingerprint; by the log before vLLM had fingerprints; where both are, by both."""
    said = {}
    if live.fingerprint is not None:
        said["fingerprint"] = live.fingerprint.layout
    if live.facts is not None and live.facts.engine:
        said["log"] = _layout_in_log(live.facts)
    layout = _common(said)
    single = deployment.layout.fingerprint or "one rank"
    return _equal("layout", single, "one rank" if layout == "" else layout)


def _layout_in_log(facts: Facts) -> str | None:
    sizes = [
        (short, facts.engine.get(f"{name}_parallel_size"))
        for short, name in (("tp", "tensor"), ("pp", "pipeline"), ("dp", "data"))
    ]
    if any(size is None for _, size in sizes):
        return None
    parts = [f"{short}{size}" for short, size in sizes if size != "1"]
    return "-".join(parts + (["ep"] if facts.expert_parallel else []))


def _served(deployment: Deployment, live: LiveConfig, *, ours: bool) -> Comparison:
    """Exactly one model. A server of somebody else's may serve it under another name, if its root
    is the deployment's model."""
    names = [model.id for model in live.models]
    told = ", ".join(names) or None
    asked = deployment.model
    agrees = names == [asked]
    if not ours and len(live.models) == 1 and live.models[0].root == asked:
        agrees = True
        told = f"{told} ({asked})"
    return Comparison("served models", asked, told, agrees)


def _engines(deployment: Deployment, profile: Profile, live: LiveConfig) -> Iterator[Comparison]:
    engines, options = live.engines, deployment.options
    yield _equal("engines", deployment.layout.data, len(engines))
    if (caching := expected_prefix_caching(deployment, profile)) is not None:
        values = {n: e.prefix_caching for n, e in engines.items()}
        yield _equal("prefix_caching", caching, _common(values))
    if (wanted := options.kv_cache_dtype) is not None:
        dtype = _common({n: e.cache_dtype for n, e in engines.items()})
        yield Comparison("kv_cache_dtype", wanted, dtype, _same_dtype(wanted, dtype))
    if options.gpu_memory_utilization is not None:
        shares = _common({n: e.gpu_memory_utilization for n, e in engines.items()})
        yield _equal("gpu_memory_utilization", options.gpu_memory_utilization, shares)
    if options.kv_cache_gib is not None:
        sizes = _common({n: e.kv_bytes for n, e in engines.items()})
        yield _equal("kv_cache_bytes", int(options.kv_cache_gib * GIB), sizes)
    tokens = {n: e.kv_tokens for n, e in engines.items()}
    told = ", ".join(f"engine {n}: {t or 'not told'}" for n, t in sorted(tokens.items()))
    yield Comparison(
        "kv_capacity",
        f"tokens of {deployment.layout.data} engines",
        told or None,
        len(tokens) == deployment.layout.data and all(tokens.values()),
    )


def expected_prefix_caching(deployment: Deployment, profile: Profile) -> bool | None:
    """Off to benchmark, on as shipped; None where vLLM takes the choice away (MLA on CPU is
    served without it, whatever is asked: vLLM 0.32, platforms/cpu.py)."""
    if profile is Profile.BENCHMARK:
        return False
    return None if deployment.gpus.architecture == "cpu" else True


def _same_dtype(asked: str, live: str | None) -> bool:
    """auto is the checkpoint's own choice, which the server names in its place; fp8 is fp8_e4m3."""
    if live is None or asked == "auto":
        return live is not None
    return live.replace("fp8_e4m3", "fp8") == asked.replace("fp8_e4m3", "fp8")


def _from_log(deployment: Deployment, facts: Facts | None) -> Iterator[Comparison]:
    options, layout = deployment.options, deployment.layout
    asked = intents(deployment, Profile.SERVING)
    rows = [
        ("expert_parallelism", _experts_asked(deployment)),
        ("dtype", COMPUTED_IN),
        ("enforce_eager", str(options.enforce_eager)),
        ("unknown variables", NONE),
        ("attention_backend", asked.get("attention_backend")),
        ("moe_backend", options.moe_backend),
        # Without data parallelism vLLM has no all-to-all to choose.
        ("all2all_backend", options.all2all_backend if layout.data > 1 else None),
        ("deep_gemm", _deep_gemm_asked(deployment)),
    ]
    for name, wanted in rows:
        if wanted is None:
            continue
        if facts is None:
            yield Comparison(name, wanted, None, agrees=False, observable=False)
            continue
        live = _in_log(name, facts, layout.expert_ranks)
        yield Comparison(name, wanted, live, live is not None and _fits(name, wanted, live))


def _in_log(name: str, facts: Facts, ranks: int) -> str | None:
    match name:
        case "expert_parallelism":
            return _experts(facts, ranks)
        case "dtype":
            return (facts.engine.get("dtype") or "").removeprefix("torch.") or None
        case "enforce_eager":
            return facts.engine.get("enforce_eager")
        case "unknown variables":
            return ", ".join(facts.unknown_variables) or NONE
        case "attention_backend":
            return facts.attention_backend or None
        case "all2all_backend":
            return facts.all2all or None
        case _:
            return facts.moe_backend or None


def _fits(name: str, asked: str, live: str) -> bool:
    match name:
        case "moe_backend":
            return is_moe_kernel(asked, live)
        case "all2all_backend":
            return is_all2all(asked, live)
        case "deep_gemm":
            return ("DEEPGEMM" in live) is (asked == "DEEPGEMM")
        case _:
            return asked == live


def _experts_asked(deployment: Deployment) -> str:
    ranks = deployment.layout.expert_ranks
    return f"each of {ranks} ranks holds 1/{ranks}" if deployment.layout.expert else "off"


def _experts(facts: Facts, ranks: int) -> str:
    """Not every rank logs its share (vLLM 0.32: the first of each engine), but each that does must
    know all ranks, and hold its share and no more."""
    if not facts.experts:
        return "off"
    shares = sorted({(e.ranks, e.local, e.total) for e in facts.experts.values()})
    if all(of == ranks and local in _shares(total, ranks) for of, local, total in shares):
        return f"each of {ranks} ranks holds 1/{ranks}"
    return ", ".join(f"one of {of} ranks holds {local}/{total}" for of, local, total in shares)


def _shares(total: int, ranks: int) -> tuple[int, int]:
    return total // ranks, -(-total // ranks)


def _deep_gemm_asked(deployment: Deployment) -> str | None:
    """The variable decides the experts' kernels where no moe_backend does, for FP8 (vLLM 0.32)."""
    options = deployment.options
    decides = options.moe_backend is None and deployment.precision is Precision.FP8
    if options.deep_gemm is None or not decides or deployment.lane is Lane.SIMULATED:
        return None
    return "DEEPGEMM" if options.deep_gemm else "not DEEPGEMM"


def _common(values: Mapping[str, object | None]) -> str | None:
    """The one value of all; a list of them where they differ; None where nobody tells."""
    distinct = set(values.values())
    if distinct <= {None}:
        return None
    if len(distinct) == 1:
        return str(distinct.pop())
    return ", ".join(f"{key}: {value}" for key, value in sorted(values.items()))
