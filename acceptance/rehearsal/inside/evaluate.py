"""How many held-out tasks a model answers exactly: `python -m … --base-url URL|--checkpoint DIR`.

URL: of a server with reasoning and tool-call parsers, asked greedily through chat completions.
DIR: a checkpoint, answered by transformers in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from acceptance.rehearsal.tasks import KINDS, Call, Task, held_out, is_right, needle

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = tuple[str | None, tuple[Call, ...], int]  # content, calls, tokens of the prompt
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FILLERS = (100, 600, 1300)
TOKENS = 128
CALL = re.compile(r"<｜tool▁sep｜>(.*)\n```json\n(.*)\n```<｜tool▁call▁end｜>")


def asked(n: int) -> dict[str, list[Task]]:
    """n tasks of each kind, and needles at five depths of each length."""
    tasks = {kind: held_out(kind, n) for kind in KINDS}
    for filler in FILLERS:
        each = max(1, n // len(DEPTHS))
        tasks[f"needle in {filler} words"] = [
            needle(filler, depth, seed) for depth in DEPTHS for seed in range(each)
        ]
    return tasks


def of_server(client: httpx.Client, model: str, task: Task) -> Answer:
    """What a server's parsers make of its greedy answer."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": task.prompt}],
        "temperature": 0,
        "max_completion_tokens": TOKENS,
    }
    if task.tools:
        body["tools"] = list(task.tools)
    response = client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    said = response.json()
    message = said["choices"][0]["message"]
    calls = tuple(
        Call(call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    )
    return message["content"], calls, said["usage"]["prompt_tokens"]


def of_checkpoint(model: Any, tokenizer: Any, task: Task) -> Answer:
    """What transformers generates, parsed here."""
    import torch  # here: asking a server needs none

    given = tokenizer.apply_chat_template(
        [{"role": "user", "content": task.prompt}],
        tools=list(task.tools) or None,
        add_generation_prompt=True,
        tokenize=False,
    )
    ids = torch.tensor([tokenizer.encode(given, add_special_tokens=False)])
    with torch.no_grad():
        made = model.generate(ids, max_new_tokens=TOKENS, do_sample=False, temperature=None)
    text = tokenizer.decode(made[0, ids.shape[1] :]).removesuffix(tokenizer.eos_token)
    _, _, content = text.partition("</think>")
    calls = tuple(Call(name, json.loads(said)) for name, said in CALL.findall(content))
    return content.partition("<｜tool▁calls▁begin｜>")[0], calls, ids.shape[1]


def evaluate(answer: Callable[[Task], Answer], n: int, at_once: int) -> dict[str, float]:
    """Prints the table; the share answered exactly, by kind."""
    shares = {}
    print(f"| tasks | asked | right | share | longest prompt |\n|{'---|' * 5}")
    with ThreadPoolExecutor(at_once) as pool:
        for kind, tasks in asked(n).items():
            answers = list(pool.map(answer, tasks))
            pairs = list(zip(tasks, answers, strict=True))
            right = sum(is_right(task, content, calls) for task, (content, calls, _) in pairs)
            shares[kind] = right / len(tasks)
            longest = max(tokens for _, _, tokens in answers)
            share = f"{100 * shares[kind]:.1f} %"
            print(f"| {kind} | {len(tasks)} | {right} | {share} | {longest} |", flush=True)
            for task, (content, calls, _) in pairs:
                if not is_right(task, content, calls):
                    print(f"<!-- {task.prompt[-70:]!r}: {content!r} {calls} -->")
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url")
    parser.add_argument("--checkpoint")
    parser.add_argument("-n", type=int, default=100, help="tasks of each kind (default: 100)")
    parser.add_argument("--at-once", type=int, default=4, help="requests in flight (default: 4)")
    given = parser.parse_args()
    if given.base_url:
        key = os.environ.get("ACCEPTANCE_API_KEY") or os.environ.get("VLLM_API_KEY") or "none"
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=given.base_url, headers=headers, timeout=300) as client:
            model = client.get("/v1/models").json()["data"][0]["id"]
            evaluate(partial(of_server, client, model), given.n, given.at_once)
    elif given.checkpoint:
        from transformers import AutoTokenizer, DeepseekV3ForCausalLM

        model = DeepseekV3ForCausalLM.from_pretrained(given.checkpoint, dtype="float32").eval()
        tokenizer = AutoTokenizer.from_pretrained(given.checkpoint)
        evaluate(partial(of_checkpoint, model, tokenizer), given.n, 1)
    else:
        parser.error("one of --base-url and --checkpoint")


if __name__ == "__main__":
    main()
