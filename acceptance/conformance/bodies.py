"""Request bodies that the checks start from: short, greedy, seeded."""

from __future__ import annotations

from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PATHS = {"chat": CHAT, "completion": COMPLETIONS}

# Shorter than one block of the KV cache, so that a repeat is computed like the first time even
# where prefix caching is on.
PROMPT = "Once upon a time, by the sea,"
QUESTION = "Tell me about the sea."
TOKENS = 16


def completion(model: str, /, **changes: Any) -> dict[str, Any]:
    """A text completion; a change to None leaves the field out."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "seed": 7}
    return _changed(body, changes)


def chat(model: str, /, **changes: Any) -> dict[str, Any]:
    """A chat completion; a change to None leaves the field out."""
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0, "seed": 7}
    return _changed(body, changes)


def body(kind: str, model: str, /, **changes: Any) -> dict[str, Any]:
    """Of kind "chat" or "completion"."""
    return chat(model, **changes) if kind == "chat" else completion(model, **changes)


def _changed(body: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**body, **changes}.items() if value is not None}
