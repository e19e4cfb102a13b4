"""One small real generation: the only proof that a server serves (a hung engine answers
/health with 200 until an RPC times out, vllm#39863)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from acceptance.errors import ServerError
from acceptance.serving.addresses import bases_of
from acceptance.serving.client import client, headers

if TYPE_CHECKING:
    from acceptance.serving.metrics import Endpoint

__all__ = ["PROMPT", "generate", "generate_at", "headers", "prove_identity"]

PROMPT = "The capital of France is"


def generate(server: Endpoint, model: str, *, tokens: int = 4, timeout: float) -> dict[str, Any]:
    """Asks for a few greedy tokens, at every address that the server has, and returns the (last)
    answer's JSON. timeout: seconds, of each.

    Raises ServerError when nothing, an error, or an answer without those tokens comes back.
    """
    *others, last = bases_of(server)
    for url in others:
        generate_at(url, server, model, tokens=tokens, timeout=timeout)
    return generate_at(last, server, model, tokens=tokens, timeout=timeout)


def generate_at(
    url: str, server: Endpoint, model: str, *, tokens: int = 4, timeout: float
) -> dict[str, Any]:
    """The same at one address of the server."""
    where = "" if url == server.base_url else f" of {url}"
    asked = f"POST /v1/completions{where}, {tokens} tokens, within {timeout:.0f} s"
    try:
        with client(server, timeout, at=url) as http:
            answer = http.post(
                "/v1/completions",
                json={
                    "model": model,
                    "prompt": PROMPT,
                    "max_tokens": tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                },
            )
    except httpx.HTTPError as error:
        raise ServerError(f"no generation: {error!r}", asked=asked) from error
    if answer.status_code != 200:
        said_why = _why(answer)
        raise ServerError(f"no generation: HTTP {answer.status_code} {said_why}", asked=asked)
    try:
        said: dict[str, Any] = answer.json()
        made = said["usage"]["completion_tokens"]
    except (ValueError, KeyError, TypeError) as error:
        body = answer.text[:300]
        raise ServerError(f"no generation: HTTP 200 {body}", asked=asked) from error
    if made != tokens:
        raise ServerError(f"a generation of {made} tokens", asked=asked)
    return said


def _why(answer: httpx.Response) -> str:
    """What an answer gives as its error, without vLLM's pointer to a stack trace that the client
    does not see; at most 300 characters."""
    try:
        why = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        why = answer.text
    return why.partition(". See stack trace")[0][:300]


def prove_identity(server: Endpoint, timeout: float = 10.0) -> None:
    """Proves that the server at this address is the one started with this key: the right key is
    let in, none and a wrong one are not. Raises ServerError otherwise."""
    url = f"{server.base_url}/v1/models"
    answers = {}
    for name, key in (("the key", server.api_key), ("no key", ""), ("a wrong key", "wrong")):
        try:
            with client(server, timeout, key) as http:
                answers[name] = http.get("/v1/models").status_code
        except httpx.HTTPError as error:
            raise ServerError(f"/v1/models does not answer: {error!r}", asked=url) from error
    if answers != {"the key": 200, "no key": 401, "a wrong key": 401}:
        raise ServerError(
            "the server at this port is not the one that was started, or does not ask for its key",
            asked=url,
            cause=", ".join(f"{name}: HTTP {code}" for name, code in answers.items()),
            hint="another server may own the port; stop it, or start again for another port",
        )
