"""How a request that cannot be served must be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

QUICK = 2.0  # seconds; vLLM 0.32 refuses within milliseconds, before anything is queued


@dataclass(frozen=True)
class Refusal:
    """A request to be refused. statuses: those that are right. plain: vLLM 0.32 answers this one
    in its web framework's own form, {"detail": text}, not in OpenAI's."""

    name: str
    kind: str = "chat"
    changes: dict[str, Any] | None = None
    raw: bytes | None = None
    content_type: str = "application/json"
    statuses: tuple[int, ...] = (400, 422)
    plain: bool = False


def refusal_problems(answer: httpx.Response, asked: Refusal, within: float) -> list[str]:
    """Status, quickness (seconds, from request to the whole answer), and a JSON error that says
    something and carries the status as its code."""
    problems = []
    if answer.status_code not in asked.statuses:
        problems.append(f"HTTP {answer.status_code}, not {' or '.join(map(str, asked.statuses))}")
    seconds = answer.elapsed.total_seconds()
    if seconds > within:
        problems.append(f"took {seconds:.1f} s, more than {within:g} s")
    return problems + _body_problems(answer, asked.plain)


def _body_problems(answer: httpx.Response, plain: bool) -> list[str]:
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return [f"content type is {answer.headers.get('content-type')!r}: {answer.text[:200]!r}"]
    try:
        body = answer.json()
    except ValueError:
        return [f"no JSON: {answer.text[:200]!r}"]
    if plain and isinstance(body, dict) and isinstance(body.get("detail"), str):
        return []
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return [f"no error object: {answer.text[:200]!r}"]
    problems = []
    if not isinstance(error.get("message"), str) or not error["message"].strip():
        problems.append("the error says nothing")
    if error.get("code") != answer.status_code:
        problems.append(f"the error's code is {error.get('code')!r}, not {answer.status_code}")
    return problems


REFUSALS: tuple[Refusal, ...] = (
    Refusal("unknown model", changes={"model": "no-such-model"}, statuses=(404,)),
    Refusal(
        "unknown model, streamed",
        changes={"model": "no-such-model", "stream": True},
        statuses=(404,),
    ),
    Refusal("unknown model, completion", "completion", {"model": "no-such-model"}, statuses=(404,)),
    Refusal("malformed JSON", raw=b'{"model": "m", "messages": ['),
    Refusal("empty body", raw=b""),
    Refusal("JSON array", raw=b"[]"),
    Refusal("invalid UTF-8", raw=b'{"model": "\xff\xfe"}', plain=True),
    Refusal("not JSON by content type", raw=b"{}", content_type="text/plain", statuses=(400, 415)),
    Refusal("messages missing", changes={"messages": None}),
    Refusal("messages empty", changes={"messages": []}),
    Refusal("messages of a wrong type", changes={"messages": "hello"}),
    Refusal("message without role", changes={"messages": [{"content": "hello"}]}),
    Refusal("prompt missing", "completion", {"prompt": None}),
    Refusal("prompt of a wrong type", "completion", {"prompt": {"text": "hello"}}),
    Refusal("token id negative", "completion", {"prompt": [-1]}),
    Refusal("token id out of the vocabulary", "completion", {"prompt": [2**31 - 1]}),
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
    Refusal("top_logprobs above 20", changes={"logprobs": True, "top_logprobs": 21}),
    Refusal(
        "image for a text model",
        changes={
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {"url": "data:image/png;base64,AAAA"},
                        }
                    ],
                }
            ]
        },
    ),
)
