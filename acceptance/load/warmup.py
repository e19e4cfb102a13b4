"""Warm-up before a cell: waves of its own shape until their time is steady.

Never with the measured prompts: the tool's own warm-up and ready check repeat its request 0, which
then hits the prefix cache, and never reach the cell's batch size. Answers are cut at WARM_OUTPUT
tokens: prefill and the first decode steps meet every kernel shape that depends on lengths and
batch, while whole waves of 8000-token answers would cost as much as the cell. What still compiles
later is caught by the rule jit-or-error-in-window.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from acceptance.judging.judgement import Frozen
from acceptance.load.pace import WARM_OUTPUT
from acceptance.serving.addresses import in_turn
from acceptance.serving.client import certificates, headers, on_this_host

if TYPE_CHECKING:
    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell

ORDINARY_TOKENS = 128_000  # DeepSeek-V3's vocabulary without its special tokens
FIRST_TOKEN = 3  # after begin, end and padding
CHECK_EVERY = 0.5  # seconds


class WarmRule(Frozen):
    """When warming ends: after at least `least` waves, as soon as a wave's time differs from the
    one before by less than the share `change`, and after `most` waves in any case."""

    least: int = 2
    most: int = 5
    change: float = 0.2


class WarmUp(Frozen):
    """What was done. waves: seconds each. requests: in a wave. failed: requests that did not
    answer 200, with the first one's reason. Warming stops at a wave with failures."""

    rule: WarmRule
    requests: int
    isl: int
    osl: int
    waves: tuple[float, ...] = ()
    steady: bool = False
    failed: int = 0
    reason: str = ""


def warm_up(target: Target, cell: Cell, deadline: float, rule: WarmRule | None = None) -> WarmUp:
    """Runs the waves. deadline: seconds for one request. Raises ServerError when the server dies.

    A wave has at least one request for every data-parallel rank, so that none is cold.
    """
    rule = rule or WarmRule()
    requests = max(cell.batch, target.deployment.layout.data)
    done = WarmUp(rule=rule, requests=requests, isl=cell.isl, osl=min(cell.osl, WARM_OUTPUT))
    draw = random.Random(f"warm-up of {cell.deployment} {cell.id}")
    tokens = ordinary_tokens(target.model_path)
    while len(done.waves) < rule.most and not done.steady and not done.failed:
        prompts = [draw.choices(tokens, k=cell.isl) for _ in range(requests)]
        seconds, reasons = asyncio.run(_wave(target, prompts, done.osl, deadline))
        waves = (*done.waves, round(seconds, 4))
        done = done.model_copy(
            update={
                "waves": waves,
                "steady": is_steady(waves, rule),
                "failed": len(reasons),
                "reason": reasons[0] if reasons else "",
            }
        )
    return done


def is_steady(waves: tuple[float, ...], rule: WarmRule) -> bool:
    """Whether the rule's condition holds for wave times in seconds."""
    if len(waves) < rule.least or len(waves) < 2:
        return False
    return abs(waves[-1] - waves[-2]) < rule.change * waves[-2]


async def _wave(
    target: Target, prompts: list[list[int]], osl: int, deadline: float
) -> tuple[float, list[str]]:
    """Sends all prompts at once; seconds until the last answer, and why any failed."""
    async with httpx.AsyncClient(
        headers=headers(target),
        timeout=deadline,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        verify=certificates(),
        trust_env=not on_this_host(target.base_url),
    ) as client:
        began = time.perf_counter()
        urls = in_turn(target)
        sent = asyncio.gather(*(_send(client, next(urls), target.model, p, osl) for p in prompts))
        while not sent.done():
            await asyncio.wait([sent], timeout=CHECK_EVERY)
            try:
                target.check()
            except BaseException:
                sent.cancel()
                raise
        seconds = time.perf_counter() - began
        return seconds, [reason for reason in await sent if reason]


async def _send(
    client: httpx.AsyncClient, url: str, model: str, prompt: list[int], osl: int
) -> str:
    """One request as the tool sends them, but not streamed; why it failed, or nothing."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": prompt,
        "max_tokens": osl,
        "repetition_penalty": 1.0,
        "ignore_eos": True,
    }
    try:
        answer = await client.post(f"{url}/v1/completions", json=body)
    except httpx.HTTPError as error:
        return repr(error)
    return "" if answer.status_code == 200 else f"HTTP {answer.status_code}: {answer.text[:200]}"


def ordinary_tokens(model_path: str) -> range:
    """Token ids to draw prompts from: a local checkpoint's own vocabulary, else DeepSeek's."""
    config = Path(model_path) / "config.json"
    size = ORDINARY_TOKENS
    if config.is_file():
        size = min(size, int(json.loads(config.read_text(encoding="utf-8"))["vocab_size"]))
    return range(FIRST_TOKEN, size)
