"""Which requests the fake server refuses, and how, as vLLM 0.32.0 was seen to do."""

from __future__ import annotations

from typing import Any

from fake_tokens import VOCABULARY

RANGES = {
    "temperature": (0, 2),
    "top_p": (1e-9, 1),
    "n": (1, 16384),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "top_logprobs": (0, 20),
}


def refuse(kind: str, body: Any, model: str, limit: int) -> tuple[int, str] | None:
    """Status and message; None for a request that is served."""
    if not isinstance(body, dict):
        return 400, "Input should be a valid dictionary"
    if body.get("model", model) != model:
        return 404, f"The model `{body['model']}` does not exist."
    for name in (*RANGES, "max_tokens", "max_completion_tokens", "seed"):
        value = body.get(name)
        if isinstance(value, str):
            return 400, f"{name} should be a valid number"
        low, high = RANGES.get(name, (None, None))
        if value is not None and low is not None and not low <= value <= high:
            return 400, f"{name} must be in [{low}, {high}], got {value}."
    counted = _counts(body, limit)
    return counted or _extras(body) or (_chat(body) if kind == "chat" else _prompt(body))


def too_long(prompt: list[int], limit: int) -> tuple[int, str] | None:
    if len(prompt) == limit:
        return 400, "max_tokens must be at least 1, got 0."
    if len(prompt) > limit:
        return 400, f"This model's maximum context length is {limit} tokens."
    return None


def _counts(body: dict[str, Any], limit: int) -> tuple[int, str] | None:
    cap = body.get("max_completion_tokens") or body.get("max_tokens", 16)
    if cap == 0 and body.get("echo"):
        return None
    if cap < 1:
        return 400, f"max_tokens must be at least 1, got {cap}."
    if cap > limit:
        return 400, f"max_tokens={cap} cannot be greater than max_model_len={limit}."
    if body.get("min_tokens", 0) > cap:
        return 400, "min_tokens must be less than or equal to max_tokens"
    if body.get("n", 1) > 1 and body.get("temperature") == 0:
        return 400, "n must be 1 when using greedy sampling"
    if "" in (body.get("stop") or ()):
        return 400, "stop cannot contain an empty string."
    if len(body.get("stop") or ()) > 4:
        return 400, "at most 4 stop strings"
    return None


def _extras(body: dict[str, Any]) -> tuple[int, str] | None:
    """Constraints, tools and log-probabilities."""
    if body.get("top_logprobs") and not body.get("logprobs"):
        return 400, "when using `top_logprobs`, `logprobs` must be set to true."
    if body.get("prompt_logprobs") and body.get("stream"):
        return 400, "`prompt_logprobs` are not available when `stream=True`."
    form = (body.get("response_format") or {}).get("type", "text")
    if form not in ("text", "json_schema", "json_object"):
        return 400, f"Input tag '{form}' does not match any of the expected tags"
    bound = body.get("structured_outputs")
    if bound is not None:
        kinds = [kind for kind in ("json", "regex", "choice", "grammar") if kind in bound]
        if len(kinds) != 1:
            return 400, "You can only use one kind of structured outputs constraint"
        if bound[kinds[0]] in ("(", {"type": "no such type"}, 7, "root ::= (", []):
            return 400, f"{bound[kinds[0]]} is no {kinds[0]}"
    tools = body.get("tools")
    if tools == [] or (tools is not None and not isinstance(tools, list)):
        return 400, "tools should be a list of at least one"
    if body.get("tool_choice", "none") != "none" and not tools:
        return 400, "When using `tool_choice`, `tools` must be set."
    return None


def _chat(body: dict[str, Any]) -> tuple[int, str] | None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return 400, "messages: a list with at least one message"
    if any("role" not in message for message in messages):
        return 400, "role: Field required"
    if any(not isinstance(message.get("content") or "", str) for message in messages):
        return 400, "this is not a multimodal model"
    return None


def _prompt(body: dict[str, Any]) -> tuple[int, str] | None:
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list) or not prompt:
        return 400, "Either prompt or prompt_embeds must be provided and non-empty."
    if isinstance(prompt, list) and isinstance(prompt[0], int):
        for token in prompt:
            if not 0 <= token < VOCABULARY:
                return 400, f"Token id {token} is out of vocabulary"
    return None
