"""Which routes a server has, which ask for the key, and which must not be there at all."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from acceptance.conformance.bodies import CHAT, COMPLETIONS, chat, completion

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUTES = Path(__file__).parent / "routes.toml"
METHODS = ("get", "post", "put", "patch", "delete")
GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # what --api-key guards in vLLM 0.32

# Outside the guard in vLLM 0.32, and of use to whoever reaches the port: they generate, or change
# the server. A deployment that lets them be says so by name (accepted.open_routes).
RISKY_OPEN = ("/invocations", "/generative_scoring", "/scale_elastic_ep")

# Outside the guard in vLLM 0.32, by design or not. A route beyond these is new.
KNOWN_OPEN = frozenset(
    {
        *("/health", "/ping", "/version", "/load", "/metrics", "/kv_event_sources"),
        *("/tokenize", "/detokenize", "/invocations", "/generative_scoring"),
        *("/scale_elastic_ep", "/is_scaling_elastic_ep"),
    }
)

# Of VLLM_SERVER_DEV_MODE=1, reinforcement learning and the profiler: whoever reaches the port may
# pause the server, replace its weights or run code in its workers. vLLM 0.32, none asks for a key.
ADMIN = frozenset(
    {
        *("/server_info", "/collective_rpc", "/sleep", "/wake_up", "/is_sleeping"),
        *("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"),
        *("/release_kv_cache_memory", "/pause", "/resume", "/is_paused", "/abort_requests"),
        *("/init_weight_transfer_engine", "/shutdown_weight_transfer_engine"),
        *("/start_weight_update", "/start_draft_weight_update", "/update_weights"),
        *("/finish_weight_update", "/update_weight_version", "/weight_info", "/weight_checker"),
        *("/get_world_size", "/start_profile", "/stop_profile"),
    }
)
ADMIN_READS = ("/server_info", "/is_sleeping", "/is_paused", "/get_world_size")  # GET, harmless

_PARAMETER = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True)
class Route:
    """path: as in openapi.json, parameters in braces."""

    method: str
    path: str

    @property
    def url(self) -> str:
        """A path to ask: parameters name something that does not exist."""
        return _PARAMETER.sub("no-such-id", self.path)

    @property
    def guarded(self) -> bool:
        """Whether it belongs behind the key."""
        return any(self.path == g or self.path.startswith(f"{g}/") for g in GUARDED)

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


def routes(openapi: dict[str, Any]) -> list[Route]:
    """Every route of an openapi.json. Raises LookupError when it lists none."""
    found = [
        Route(method, path)
        for path, methods in openapi.get("paths", {}).items()
        for method in METHODS
        if method in methods
    ]
    if not found:
        raise LookupError("openapi.json lists no route")
    return found


def valid_bodies(model: str) -> dict[str, dict[str, Any] | None]:
    """For routes where a request that must succeed is known."""
    messages = [{"role": "user", "content": "Hello."}]
    return {
        "/v1/models": None,
        CHAT: chat(model, max_tokens=2),
        COMPLETIONS: completion(model, max_tokens=2),
        "/v1/messages": {"model": model, "max_tokens": 2, "messages": messages},
        "/v1/messages/count_tokens": {"model": model, "messages": messages},
        "/v1/responses": {"model": model, "input": "Hello.", "max_output_tokens": 2},
    }


def known_routes(version: Version) -> frozenset[str] | None:
    """Every route that was seen of this minor release; None where none was looked at."""
    for row in tomllib.loads(ROUTES.read_text(encoding="utf-8"))["version"]:
        if Version(row["vllm"]).release[:2] == version.release[:2]:
            return frozenset(row["routes"])
    return None


def unknown_open(found: Iterable[Route]) -> list[str]:
    """Routes outside the guard that are not known to be."""
    return sorted({r.path for r in found if not r.guarded and r.path not in KNOWN_OPEN})


def admin_routes(found: Iterable[Route]) -> list[str]:
    """Routes that production must not have."""
    return sorted({r.path for r in found if r.path in ADMIN})
