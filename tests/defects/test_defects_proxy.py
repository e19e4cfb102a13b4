"""The proxy passes what it does not alter, and each alteration alters what it says."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from defects_alter import ALTERATIONS
from defects_altering import LONG, MANY
from defects_proxy import Proxy
from simulation_world import KEY, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from defects_proxy import Alteration

MODEL = "deepseek-ai/DeepSeek-R1-0528"
TEXT: dict[str, Any] = {"model": MODEL, "prompt": "Tell me", "max_tokens": 8, "temperature": 0}
CHAT: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell me"}],
    "max_tokens": 8,
    "temperature": 0,
}
PATHS = {"prompt": "/v1/completions", "messages": "/v1/chat/completions"}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Before one simulated server for all of these tests."""
    with running(tmp_path_factory.mktemp("proxy")) as server:
        found = Proxy(server.url, KEY)
        yield found
        found.close()


def ask(url: str, body: dict[str, Any], path: str = "", key: str = KEY) -> httpx.Response:
    path = path or next(path for name, path in PATHS.items() if name in body)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.post(f"{url}{path}", json=body, headers=headers, timeout=60)


def said(answer: httpx.Response) -> Any:
    """What is the same for the same request."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        return [e if e == "[DONE]" else _steady(json.loads(e)) for e in events]
    return _steady(answer.json())


def _steady(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("id", "created")}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", [TEXT, CHAT], ids=["text", "chat"])
def test_nothing_is_altered_unasked(proxy: Proxy, body: dict[str, Any], stream: bool) -> None:
    asked = {**body, "stream": stream, "logprobs": 1 if "prompt" in body else True}
    with proxy.altering(ALTERATIONS["none"]()) as url:
        through, straight = ask(url, asked), ask(proxy.upstream, asked)
        assert said(through) == said(straight)
        assert through.headers["content-type"] == straight.headers["content-type"]
        assert ask(url, asked, key="").status_code == 401
        assert ask(url, {"model": MODEL}, PATHS["prompt"]).status_code == 400
        metrics = httpx.get(f"{url}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")


STREAMED = {**TEXT, "stream": True, "stream_options": {"include_usage": True}}
REQUESTS: dict[str, dict[str, Any]] = {
    "stop-string-leaks": {**STREAMED, "stop": "p"},
    "stop-string-kept": {**TEXT, "stop": "p"},
    "logprobs-positive": {**TEXT, "logprobs": 2},
    "logprobs-shifted": {**CHAT, "logprobs": True, "top_logprobs": 2},
    "logprobs-nan": {**TEXT, "logprobs": 2},
    "prompt-logprobs-shifted": {**TEXT, "prompt_logprobs": 1},
    "scores-of-another-temperature": {**TEXT, "prompt_logprobs": 1},
    "temperature-ignored": {**TEXT, "temperature": 1, "seed": 7},
    "eos-not-ignored": {**TEXT, "max_tokens": 60, "ignore_eos": True},
    "choices-lost": {**TEXT, "n": 2},
    "chat-template-of-another-model": {**CHAT, "return_token_ids": True},
    "prompt-truncated": {**TEXT, "prompt": [100] * (LONG + 8)},
    "garbled-above-a-length": {**TEXT, "prompt": [100] * (LONG + 8)},
    "overlong-is-cut": {**TEXT, "prompt": [100] * 2048, "max_tokens": 1},
    "bad-input-is-500": {**TEXT, "max_tokens": -1},
    "model-under-another-name": TEXT,
}
OF_STREAMS = {
    *("stream-drops-last-token", "stream-without-done", "stream-error-after-200"),
    *("stream-breaks-off", "stream-usage-missing", "stream-unlike-whole", "reasoning-in-old-field"),
}


@pytest.mark.parametrize(
    "name",
    sorted(
        {*REQUESTS, *OF_STREAMS, "only-bos", "repeats-itself", "usage-completion-off"}
        | {"usage-prompt-off", "one-token-short", "second-bos", "health-says-200-always"}
    ),
)
def test_altered(proxy: Proxy, name: str) -> None:
    """The same request is answered otherwise than by the server itself."""
    body = REQUESTS.get(name, STREAMED if name in OF_STREAMS else TEXT)
    if name == "reasoning-in-old-field":
        body = {**CHAT, "stream": True}
    if "stop" in body:  # at something that it says
        body = {**body, "stop": ask(proxy.upstream, TEXT).json()["choices"][0]["text"][3:5]}
    straight = ask(proxy.upstream, body)
    with proxy.altering(ALTERATIONS[name]()) as url:
        through = ask(url, body)
    assert (through.status_code, said(through)) != (straight.status_code, said(straight))


def test_a_split_character_is_no_utf8(proxy: Proxy) -> None:
    with proxy.altering(ALTERATIONS["stream-splits-utf8"]()) as url:
        raw = ask(url, STREAMED).content
    with pytest.raises(UnicodeDecodeError):
        raw.decode()


@pytest.mark.parametrize(("name", "key"), [("no-key-needed", ""), ("any-key-fits", "another")])
def test_keys(proxy: Proxy, name: str, key: str) -> None:
    assert ask(proxy.upstream, TEXT, key=key).status_code == 401
    with proxy.altering(ALTERATIONS[name]()) as url:
        assert ask(url, TEXT, key=key).status_code == 200


def test_routes(proxy: Proxy) -> None:
    with proxy.altering(ALTERATIONS["dev-mode"]()) as url:
        assert httpx.get(f"{url}/server_info").status_code == 200
        assert "/sleep" in httpx.get(f"{url}/openapi.json").json()["paths"]
    with proxy.altering(ALTERATIONS["new-open-route"]()) as url:
        assert "/backdoor" in httpx.get(f"{url}/openapi.json").json()["paths"]
    with proxy.altering(ALTERATIONS["one-route-open"]()) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200
    with proxy.altering(ALTERATIONS["metric-renamed"]()) as url:
        assert "gpu_cache_usage_perc" in httpx.get(f"{url}/metrics").text


def test_what_shows_late(proxy: Proxy) -> None:
    with proxy.altering(ALTERATIONS["garbled-later"]()) as url:
        texts = [ask(url, TEXT).json()["choices"][0]["text"] for _ in range(MANY + 1)]
        assert len(set(texts[:MANY])) == 1
        assert texts[MANY] == texts[0][::-1]
    with proxy.altering(ALTERATIONS["garbled-second-time"]()) as url:
        first, again = (ask(url, TEXT).json()["choices"][0]["text"] for _ in range(2))
        assert again == first[::-1] != first
    with proxy.altering(ALTERATIONS["prefix-reused"]()) as url:
        alike = "Tell me of the sea. " * 8
        one, other = (ask(url, {**TEXT, "prompt": alike + end}) for end in ("Now.", "Here."))
        assert said(one) == said(other)
        scored = {**TEXT, "prompt_logprobs": 1}
        one, other = (ask(url, {**scored, "prompt": alike + end}) for end in ("Now.", "Here."))
        assert said(one) != said(other)


def test_sampling_that_is_ignored(proxy: Proxy) -> None:
    def texts(name: str, **of: Any) -> set[str]:
        with proxy.altering(ALTERATIONS[name]()) as url:
            asked = {**TEXT, **of}
            return {ask(url, asked).json()["choices"][0]["text"] for _ in range(4)}

    assert len(texts("greedy-ignored", seed=1)) > 1
    assert len(texts("seed-ignored", temperature=1, seed=1)) > 1


def test_prompts_cut_in_silence_are_counted_whole(proxy: Proxy) -> None:
    with proxy.altering(ALTERATIONS["prompt-truncated-silently"]()) as url:
        usage = ask(url, {**TEXT, "prompt": [100] * (LONG + 8)}).json()["usage"]
        long = [{"role": "user", "content": "Tell me of the sea. " * LONG}]
        answer = ask(url, {**CHAT, "messages": long, "return_token_ids": True}).json()
    assert usage["prompt_tokens"] == LONG + 8
    assert answer["usage"]["prompt_tokens"] > 2 * LONG
    assert len(answer["prompt_token_ids"]) == LONG


def test_refusals_that_take_long(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    alteration = ALTERATIONS["bad-input-hangs"]()
    monkeypatch.setattr("defects_alter_access.asyncio.sleep", sleep)
    body = {"prompt": [1] * (LONG + 8)}
    assert asyncio.run(alteration.says(PATHS["prompt"], body, 400, {})) == (400, {})
    assert slept == [4]


def says(alteration: Alteration, asked: Any, answer: Any) -> Any:
    return asyncio.run(alteration.says(PATHS["messages"], asked, 200, answer))[1]


def test_cross_talk_takes_two_in_flight() -> None:
    alteration = ALTERATIONS["cross-talk"]()
    alteration.flying = 1  # type: ignore[attr-defined]
    assert says(alteration, {}, "a") == "a"
    alteration.flying = 2  # type: ignore[attr-defined]
    assert says(alteration, {}, "b") == "a"


def test_thoughts_and_tool_calls() -> None:
    message = {"content": "4", "reasoning": "2 and 2"}
    told = says(ALTERATIONS["reasoning-parser-off"](), {}, {"choices": [{"message": message}]})
    assert told["choices"][0]["message"] == {
        "content": "<think>2 and 2</think>4",
        "reasoning": None,
    }
    call = {"function": {"name": "f", "arguments": '{"x": 1}'}}
    body = {"choices": [{"message": {"tool_calls": [call]}}]}
    told = says(ALTERATIONS["tool-arguments-broken"](), {}, body)
    with pytest.raises(json.JSONDecodeError):
        json.loads(told["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])
