"""What must be refused, by what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

from acceptance.conformance.refusals import Refusal

NOBODY = "no-such-model"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def _bound(name: str, **constraint: Any) -> Refusal:
    return Refusal(name, changes={"structured_outputs": constraint})


UNKNOWN_MODEL = (
    Refusal("unknown model", changes={"model": NOBODY}, statuses=(404,)),
    Refusal("unknown model, streamed", changes={"model": NOBODY, "stream": True}, statuses=(404,)),
    Refusal("unknown model, completion", "completion", {"model": NOBODY}, statuses=(404,)),
)
NO_REQUEST = (
    Refusal("malformed JSON", raw=b'{"model": "m", "messages": ['),
    Refusal("empty body", raw=b""),
    Refusal("JSON array", raw=b"[]"),
    Refusal("messages missing", changes={"messages": None}),
    Refusal("messages empty", changes={"messages": []}),
    Refusal("messages of a wrong type", changes={"messages": "hello"}),
    Refusal("message without role", changes={"messages": [{"content": "hello"}]}),
    Refusal("prompt missing", "completion", {"prompt": None}),
    Refusal("prompt of a wrong type", "completion", {"prompt": {"text": "hello"}}),
)
OUT_OF_RANGE = (
    Refusal("temperature negative", changes={"temperature": -1}),
    Refusal("temperature above 2", changes={"temperature": 2.5}),
    Refusal("temperature of a wrong type", changes={"temperature": "hot"}),
    Refusal("top_p zero", changes={"top_p": 0}),
    Refusal("top_p above 1", changes={"top_p": 1.5}),
    Refusal("n zero", changes={"n": 0}),
    Refusal("n negative", changes={"n": -1}),
    Refusal("n above 1 though greedy", changes={"n": 2}),
    Refusal("max_tokens zero", changes={"max_tokens": 0}),
    Refusal("max_tokens negative", changes={"max_tokens": -1}),
    Refusal("max_tokens beyond any context", changes={"max_tokens": 10**9}),
    Refusal("max_tokens of a wrong type", changes={"max_tokens": "many"}),
    Refusal("presence_penalty above 2", changes={"presence_penalty": 3}),
    Refusal("frequency_penalty below -2", changes={"frequency_penalty": -3}),
    Refusal("seed of a wrong type", changes={"seed": "x"}),
    Refusal("stop string empty", changes={"stop": [""]}),
    Refusal("min_tokens above max_tokens", changes={"min_tokens": 20, "max_tokens": 8}),
)
SCORES = (
    Refusal("top_logprobs above 20", changes={"logprobs": True, "top_logprobs": 21}),
    Refusal("top_logprobs without logprobs", changes={"top_logprobs": 2}),
    Refusal("prompt_logprobs in a stream", changes={"prompt_logprobs": 1, "stream": True}),
)
TOKEN_IDS = (
    Refusal("token id negative", "completion", {"prompt": [-1]}),
    Refusal("token id out of the vocabulary", "completion", {"prompt": [2**31 - 1]}),
)
NO_TEXT = (
    Refusal("invalid UTF-8", raw=b'{"model": "\xff\xfe"}', plain=True),
    Refusal("not JSON by content type", raw=b"{}", content_type="text/plain", statuses=(400, 415)),
)
IMAGES = (
    Refusal("image for a text model", changes={"messages": [{"role": "user", "content": [IMAGE]}]}),
)
CONSTRAINTS = (
    _bound("regex that is none", regex="("),
    _bound("schema that is none", json={"type": "no such type"}),
    _bound("schema of a wrong type", json=7),
    _bound("grammar that is none", grammar="root ::= ("),
    _bound("choice of nothing", choice=[]),
    _bound("two constraints", regex="[0-9]", choice=["yes", "no"]),
    _bound("no constraint"),
    Refusal("no such response_format", changes={"response_format": {"type": "no such type"}}),
)
TOOLS = (
    Refusal("tools of nothing", changes={"tools": [], "tool_choice": "auto"}),
    Refusal("tools of a wrong type", changes={"tools": "hammer"}),
    Refusal("tool_choice without tools", changes={"tool_choice": "required"}),
)
REFUSALS = (
    *(*UNKNOWN_MODEL, *NO_REQUEST, *OUT_OF_RANGE, *SCORES, *TOKEN_IDS, *NO_TEXT, *IMAGES),
    *(*CONSTRAINTS, *TOOLS),
)

DEEP = 5000  # levels; a reader that recurses gives up at about 1000


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _tool(number: int) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": f"tool_{number}", "parameters": parameters}}


def hostile() -> dict[str, Refusal]:
    """Requests that are large or deep, made anew for each use. Any answer but a 5xx is right."""
    size = b"x" * 2**20
    return {
        "a megabyte of garbage": Refusal("garbage", raw=size),
        "a megabyte of one string": Refusal("string", raw=b'{"model": "' + size + b'"}'),
        "brackets": Refusal("brackets", raw=b"[" * DEEP),
        "ten thousand stops": Refusal(
            "stops", changes={"stop": [f"stop {i}" for i in range(10**4)]}
        ),
        "ten thousand tools": Refusal("tools", changes={"tools": [_tool(i) for i in range(10**4)]}),
        "deep schema": Refusal(
            "deep", raw=None, changes={"structured_outputs": {"json": json.dumps(_nested(100))}}
        ),
        "a long bias": Refusal("bias", changes={"logit_bias": {str(i): 1 for i in range(10**4)}}),
    }
