"""Bodies and chunks of the fake server, and what can be wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fake_engine import Generated, decode

if TYPE_CHECKING:
    from fake_vllm import Twin


def answer(twin: Twin, kind: str, body: dict[str, Any], made: list[Generated]) -> dict[str, Any]:
    breaks = twin.breaks
    choices = [_choice(twin, kind, body, one, i) for i, one in enumerate(made)]
    if "choices-unordered" in breaks:
        choices.reverse()
    if "index-lost" in breaks:
        for choice in choices:
            choice["index"] = 0
    answer = {
        **_head(twin, kind, "text_completion" if kind == "completion" else "chat.completion"),
        "choices": choices,
        "system_fingerprint": twin.fingerprint,
        "usage": _usage(twin, made),
    }
    if kind == "chat" and body.get("return_token_ids"):
        answer["prompt_token_ids"] = made[0].prompt
    if "model-not-echoed" in breaks:
        answer["model"] = "other"
    return answer


def _choice(
    twin: Twin, kind: str, body: dict[str, Any], one: Generated, index: int
) -> dict[str, Any]:
    breaks = twin.breaks
    choice: dict[str, Any] = {
        "index": index,
        "finish_reason": None if "never-finished" in breaks else one.finish_reason,
        "stop_reason": one.stop_reason,
        "logprobs": None,
    }
    if body.get("return_token_ids"):
        choice["token_ids"] = one.tokens
    if kind == "chat":
        role = "user" if "wrong-role" in breaks else "assistant"
        choice["message"] = {"role": role, "content": one.shown or None, "reasoning": None}
        if body.get("logprobs"):
            top = body.get("top_logprobs", 0)
            choice["logprobs"] = {"content": _scored_chat(twin, one.tokens, top)}
        return choice
    echo = body.get("echo") and "echo-dropped" not in breaks
    choice["text"] = (decode(one.prompt) if echo else "") + one.shown
    if body.get("return_token_ids"):
        choice["prompt_token_ids"] = one.prompt
    if body.get("logprobs"):
        choice["logprobs"] = _scored_completion(twin, one.tokens, body["logprobs"])
    if body.get("prompt_logprobs"):
        entries = [{str(token): {"logprob": -2.0}} for token in one.prompt[1:]]
        first: list[Any] = [] if "prompt-logprobs-shifted" in breaks else [None]
        choice["prompt_logprobs"] = [*first, *entries]
    return choice


def _top(twin: Twin, token: int, count: int) -> list[tuple[str, float]]:
    """Alternatives of one token, the chosen one first."""
    breaks, head = twin.breaks, chr(token)
    others = [chr(0x41 + i) for i in range(count - 1)]
    values = [-0.5 - i for i in range(count)]
    if "logprobs-positive" in breaks:
        values[0] = 0.25
    if "logprobs-over-one" in breaks:
        values = [-0.01] * count
    pairs = list(zip([head, *others], values, strict=True))
    if "logprobs-unsorted" in breaks:
        pairs[1:] = pairs[:0:-1]
    if "logprobs-not-greedy" in breaks:
        pairs[0] = ("?", -0.4)
    return pairs[:-1] if "logprobs-too-few" in breaks else pairs


def _scored_chat(twin: Twin, tokens: list[int], top: int) -> list[dict[str, Any]]:
    breaks = twin.breaks
    entries = []
    for token in tokens[: -1 if "logprobs-one-missing" in breaks else None]:
        pairs = _top(twin, token, top)
        value = pairs[0][1] if pairs[0][0] == chr(token) else -0.5
        shown = "x" if "bytes-of-another-token" in breaks else chr(token)
        entry = {"token": chr(token), "logprob": value, "bytes": list(shown.encode())}
        entries.append({**entry, "top_logprobs": [{"token": t, "logprob": v} for t, v in pairs]})
    return entries


def _scored_completion(twin: Twin, tokens: list[int], top: int) -> dict[str, Any]:
    entries = _scored_chat(twin, tokens, top)
    shift = 1 if "offsets-off-by-one" in twin.breaks else 0
    return {
        "tokens": [e["token"] for e in entries],
        "token_logprobs": [e["logprob"] for e in entries],
        "top_logprobs": [{t["token"]: t["logprob"] for t in e["top_logprobs"]} for e in entries],
        "text_offset": [i + shift for i in range(len(entries))],
    }


def _usage(twin: Twin, made: list[Generated]) -> dict[str, Any] | None:
    breaks = twin.breaks
    prompt = len(made[0].prompt) + ("prompt-count-off" in breaks)
    generated = sum(len(one.tokens) for one in made) + ("completion-count-off" in breaks)
    total = prompt + generated + ("total-off" in breaks)
    if "no-usage" in breaks:
        return None
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": total,
    }


def _head(twin: Twin, kind: str, name: str) -> dict[str, Any]:
    prefix = "chatcmpl" if kind == "chat" else "cmpl"
    return {"id": f"{prefix}-1", "object": name, "created": 1, "model": twin.model}


def chunks(
    twin: Twin, kind: str, body: dict[str, Any], made: list[Generated]
) -> list[dict[str, Any]]:
    breaks = twin.breaks
    name = "chat.completion.chunk" if kind == "chat" else "text_completion"
    parts: list[dict[str, Any]] = []
    if kind == "chat" and "no-role" not in breaks:
        parts += [
            {"index": i, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            for i in range(len(made))
        ]
    for index, one in enumerate(made):
        parts += _deltas(twin, kind, body, one, index)
    if "index-lost" in breaks:
        for part in parts:
            part["index"] = 0
    head = _head(twin, kind, name)
    chunks = [{**head, "choices": [part]} for part in parts]
    if "two-ids" in breaks:
        chunks[-1]["id"] = "another"
    if "usage-in-every-chunk" in breaks:
        for chunk in chunks:
            chunk["usage"] = _usage(twin, made)
    asked = (body.get("stream_options") or {}).get("include_usage")
    if asked and "no-usage-chunk" not in breaks:
        choices = parts[-1:] if "usage-chunk-has-choices" in breaks else []
        chunks.append({**head, "choices": choices, "usage": _usage(twin, made)})
    return chunks


def _deltas(
    twin: Twin, kind: str, body: dict[str, Any], one: Generated, index: int
) -> list[dict[str, Any]]:
    breaks = twin.breaks
    shown = one.shown
    if "stop-leaks" in breaks and one.stop_reason:
        shown += one.stop_reason[:1]
    if "stream-drops-a-token" in breaks:
        shown = shown[:-1]
    parts = []
    for number, token in enumerate(one.tokens):
        text = shown[number : number + 1]
        last = number == len(one.tokens) - 1
        if last:
            text = shown[number:]
        ended = last or ("finishes-twice" in breaks and number == 0)
        part: dict[str, Any] = {
            "index": index,
            "finish_reason": one.finish_reason if ended else None,
            "stop_reason": one.stop_reason if last else None,
        }
        if kind == "chat":
            field_name = "reasoning_content" if "text-in-old-field" in breaks else "content"
            part["delta"] = {field_name: text}
        else:
            part["text"] = text
        if body.get("return_token_ids"):
            part["token_ids"] = [token]
        parts.append(part)
    if "delta-after-finish" in breaks:
        parts.append({**parts[-1], "finish_reason": None})
    return parts
