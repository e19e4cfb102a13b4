"""Bodies and chunks of the fake server, and what can be wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fake_r1
from fake_tokens import THINK_END, shown, spelled

if TYPE_CHECKING:
    from fake_engine import Generated
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
        "system_fingerprint": _fingerprint(twin),
        "usage": _usage(twin, made),
    }
    if kind == "chat" and body.get("return_token_ids"):
        answer["prompt_token_ids"] = made[0].prompt
    if "model-not-echoed" in breaks:
        answer["model"] = "other"
    return answer


def _fingerprint(twin: Twin) -> str | None:
    """A replica of another version has every other request."""
    old = "two-fingerprints" in twin.breaks and twin.asked % 2
    return "vllm-0.31.0-tp2-ep-0a1b2c3d" if old else twin.fingerprint


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
        parsed = fake_r1.parse(one.tokens, body, breaks)
        choice["message"] = {
            "role": role,
            "content": parsed.content,
            "reasoning": parsed.reasoning,
            "tool_calls": parsed.calls,
        }
        if "old-reasoning-field" in breaks:
            choice["message"]["reasoning_content"] = parsed.reasoning
        if parsed.calls and "calls-say-stop" not in breaks:
            choice["finish_reason"] = "tool_calls"
        if body.get("logprobs"):
            top = body.get("top_logprobs", 0)
            ids = body.get("logprob_token_ids")
            if ids:
                top = len(ids) + (2 if "ids-not-listed" in breaks else 0)
            choice["logprobs"] = {"content": _scored_chat(twin, one.tokens, top)}
        return choice
    echo = body.get("echo") and "echo-dropped" not in breaks
    said = shown(one.prompt) if echo else ""
    if echo and body.get("return_token_ids"):
        said = ""  # as vLLM 0.32
    if "characters-lost" in breaks:
        said = "".join(c if c.isascii() else "\ufffd" for c in said)
    choice["text"] = said + one.shown
    if body.get("return_token_ids"):
        choice["prompt_token_ids"] = one.prompt
    if body.get("logprobs"):
        scored = [*one.prompt, *one.tokens] if echo else one.tokens
        choice["logprobs"] = _scored_completion(twin, scored, body["logprobs"])
        if echo:
            choice["logprobs"]["token_logprobs"][0] = None
        if "one-log-too-few" in breaks:
            choice["logprobs"]["token_logprobs"].pop()
    if body.get("prompt_logprobs"):
        entries = [{str(token): {"logprob": -2.0}} for token in one.prompt[1:]]
        first: list[Any] = [] if "prompt-logprobs-shifted" in breaks else [None]
        choice["prompt_logprobs"] = [*first, *entries]
    return choice


def _top(twin: Twin, token: int, count: int) -> list[tuple[str, float]]:
    """Alternatives of one token, the chosen one first."""
    breaks, head = twin.breaks, spelled([token])
    if not count and "logprobs-unasked" not in breaks:
        return []
    others = [chr(0x41 + i) for i in range(count - 1)]
    values = [-0.5 - i for i in range(count)]
    if "logprobs-positive" in breaks:
        values[:1] = [0.25]
    if "logprobs-over-one" in breaks:
        values = [-0.01] * count
    pairs = list(zip([head, *others], values, strict=True))
    if "logprobs-unsorted" in breaks:
        pairs[1:] = pairs[:0:-1]
    if "logprobs-not-greedy" in breaks:
        pairs[:1] = [("?", -0.4)]
    return pairs[:-1] if "logprobs-too-few" in breaks else pairs


def _scored_chat(twin: Twin, tokens: list[int], top: int) -> list[dict[str, Any]]:
    breaks = twin.breaks
    entries = []
    for token in tokens[: -1 if "logprobs-one-missing" in breaks else None]:
        pairs = _top(twin, token, top)
        own = spelled([token])
        value = pairs[0][1] if pairs and pairs[0][0] == own else -0.5
        told = "x" if "bytes-of-another-token" in breaks else own
        entry = {"token": own, "logprob": value, "bytes": list(told.encode())}
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
    generated = generated or 1  # vLLM 0.32 counts one where none was asked for
    total = prompt + generated + ("total-off" in breaks)
    if "no-usage" in breaks:
        return None
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": total,
    }
    tokens = made[0].tokens
    counts = THINK_END in tokens and "reasoning-uncounted" not in breaks
    end = tokens.index(THINK_END) + 1 if counts else 0
    return {**usage, "completion_tokens_details": {"reasoning_tokens": end}}


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
        deltas = _deltas(twin, kind, body, one, index)
        parts += [_together(deltas)] if _runs_together(breaks) else deltas
    if "index-lost" in breaks:
        for part in parts:
            part["index"] = 0
    head = _head(twin, kind, name)
    chunks = [{**head, "choices": [part]} for part in parts]
    chunks[-1]["system_fingerprint"] = twin.fingerprint
    if "two-ids" in breaks:
        chunks[-1]["id"] = "another"
    if "usage-in-every-chunk" in breaks:
        for chunk in chunks:
            chunk["usage"] = _usage(twin, made)
    options = body.get("stream_options") or {}
    asked = options.get("include_usage")
    if options.get("continuous_usage_stats") and "usage-not-continuous" not in breaks:
        for number, chunk in enumerate(chunks):
            usage = _usage(twin, made) or {}
            counted = min(number, usage.get("completion_tokens", 0))
            chunk["usage"] = {**usage, "completion_tokens": counted}
        if "usage-shrinks" in breaks:
            chunks[-1]["usage"]["completion_tokens"] = 0
    if asked and "no-usage-chunk" not in breaks:
        choices = parts[-1:] if "usage-chunk-has-choices" in breaks else []
        chunks.append({**head, "choices": choices, "usage": _usage(twin, made)})
    return chunks


def _deltas(
    twin: Twin, kind: str, body: dict[str, Any], one: Generated, index: int
) -> list[dict[str, Any]]:
    breaks = twin.breaks
    texts = _chat_deltas(one, body, breaks) if kind == "chat" else _texts(one, body, breaks)
    parts = []
    for number, (token, said) in enumerate(zip(one.tokens, texts, strict=True)):
        last = number == len(one.tokens) - 1
        ended = last or ("finishes-twice" in breaks and number == 0)
        finish = one.finish_reason
        if kind == "chat" and fake_r1.parse(one.tokens, body, breaks).calls:
            finish = "tool_calls"
        part: dict[str, Any] = {
            "index": index,
            "finish_reason": finish if ended else None,
            "stop_reason": one.stop_reason if last else None,
            **said,
        }
        if body.get("return_token_ids"):
            part["token_ids"] = [token]
        parts.append(part)
    if "delta-after-finish" in breaks:
        parts.append({**parts[-1], "finish_reason": None})
    return parts


def _runs_together(breaks: set[str]) -> bool:
    """Whether this stream does: that of a server that always does, or the first of one that did
    once."""
    once = "ran-together" in breaks
    breaks.discard("ran-together")
    return once or "runs-together" in breaks


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All in one chunk, which vLLM's parser of calls loses them from (vllm#48020)."""
    said: dict[str, str] = {}
    for part in parts:
        for name, text in part["delta"].items():
            if name != "tool_calls":
                said[name] = said.get(name, "") + text
    tokens = [token for part in parts for token in part.get("token_ids", ())]
    return {**parts[-1], "delta": said, "token_ids": tokens}


def _texts(one: Generated, body: dict[str, Any], breaks: set[str]) -> list[dict[str, Any]]:
    """Of a completion: a character a token, the rest with the last."""
    said = one.shown
    if "stop-leaks" in breaks and isinstance(one.stop_reason, str):
        said += one.stop_reason[:1]
    if "stream-drops-a-token" in breaks:
        said = said[:-1]
    last = len(one.tokens) - 1
    texts = [said[number : number + 1] for number in range(last)] + [said[last:]]
    if body.get("echo"):
        prompt = shown(one.prompt)
        if "characters-lost-in-stream" in breaks:
            prompt = "".join(c if c.isascii() else "\ufffd" for c in prompt)
        texts[0] = prompt + texts[0]
    return [{"text": text} for text in texts]


def _chat_deltas(one: Generated, body: dict[str, Any], breaks: set[str]) -> list[dict[str, Any]]:
    """What each token adds to what the parsers make of all before it."""
    field = "reasoning_content" if "text-in-old-field" in breaks else "reasoning"
    before, deltas = fake_r1.Parsed(None, None), []
    for number in range(1, len(one.tokens) + 1):
        now = fake_r1.parse(one.tokens[:number], body, breaks)
        delta: dict[str, Any] = {}
        if added := (now.reasoning or "")[len(before.reasoning or "") :]:
            delta[field] = added
        if added := (now.content or "")[len(before.content or "") :]:
            delta["content"] = added
        deltas.append({"delta": delta})
        before = now
    whole = fake_r1.parse(one.tokens, body, breaks)
    if whole.calls:
        deltas[-1]["delta"]["tool_calls"] = [
            {"index": i, **call, "function": {**call["function"], "arguments": ""}}
            for i, call in enumerate(whole.calls)
        ] + [
            {"index": i, "function": {"arguments": piece}}
            for i, call in enumerate(whole.calls)
            for piece in _pieces(call["function"]["arguments"], breaks)
        ]
    if "stream-drops-a-token" in breaks:
        deltas[-2 if len(deltas) > 1 else -1]["delta"] = {}
    if "thinks-after-content" in breaks and whole.content:
        deltas[-1]["delta"]["reasoning"] = "and so on"
    return deltas


def _pieces(arguments: str, breaks: set[str]) -> list[str]:
    half = len(arguments) // 2
    if "streamed-arguments-cut" in breaks:
        return [arguments[:half], arguments[half:-1]]
    return [arguments[:half], arguments[half:]]
