"""Many different requests at once, some of them cancelled, and each answer held against what the
server says of the same tokens when nobody else asks."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from acceptance.correctness.asking import ask, each
from acceptance.correctness.compare import Agreement, agreement
from acceptance.correctness.decoding import as_decoded, as_prefilled
from acceptance.correctness.prompts import Said, chat_body, read_chat
from acceptance.correctness.scoring import Greedy, greedy, greedy_body, score
from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.rehearsal.tasks import Task

SEED = 79
FULL = 256  # requests at once


def crowd_size(batch: float) -> int:
    """Requests of a crowd. batch: the deployment's scale."""
    return max(8, round(FULL * batch))


def different_prompts(
    texts: Mapping[str, Sequence[int]], count: int, length: int
) -> dict[str, list[int]]:
    """Prompts of `length` tokens that share no beginning: windows of the texts, each after tokens
    of its own."""
    draw, names = random.Random(SEED), list(texts)
    made: dict[str, list[int]] = {}
    for number in range(count):
        tokens = list(texts[names[number % len(names)]])
        start = draw.randrange(max(1, len(tokens) - length))
        own = draw.sample(tokens, min(8, len(tokens)))
        window = [tokens[0], *own, *tokens[start : start + length]]
        while len(window) < length:
            window += tokens[1:]
        made[f"crowd-{number}"] = window[:length]
    return made


def alike_prompts(
    texts: Mapping[str, Sequence[int]], count: int, shared: int, own: int
) -> dict[str, list[int]]:
    """Prompts that begin with the same `shared` tokens, and end in `own` others each."""
    windows = list(different_prompts(texts, count + 1, shared + own).values())
    return {
        f"alike-{number}": [*windows[0][:shared], *window[1 : own + 1]]
        for number, window in enumerate(windows[1:])
    }


def alone(http: httpx.Client, model: str, crowd: Sequence[Greedy]) -> Agreement:
    """How far what was said in the crowd lies from what the same tokens score, one request at a
    time. An answer that belongs to another prompt is improbable after its own."""
    given = {one.name: [*one.prompt, *one.tokens] for one in crowd}
    scored = score(http, model, given, concurrent=1)
    return agreement(as_prefilled(crowd, scored), as_decoded(crowd))


def with_cancelled(
    http: httpx.Client, model: str, prompts: Mapping[str, Sequence[int]], tokens: int
) -> tuple[list[Greedy], int]:
    """Greedy answers to every other prompt, while the rest are asked for as streams and left after
    their first token. Returns the answers, and how many streams were left while they ran."""
    names = list(prompts)
    staying = {name: prompts[name] for name in names[::2]}
    left = 0
    count = threading.Lock()

    def leave(name: str) -> None:
        nonlocal left
        body = {**greedy_body(model, prompts[name], 8 * tokens), "stream": True}
        with suppress(httpx.HTTPError), http.stream("POST", "/v1/completions", json=body) as said:
            if said.status_code == 200 and next(said.iter_bytes(), b""):
                with count:
                    left += 1

    threads = [threading.Thread(target=leave, args=(name,)) for name in names[1::2]]
    for thread in threads:
        thread.start()
    answers = greedy(http, model, staying, tokens, concurrent=len(staying))
    for thread in threads:
        thread.join()
    return answers, left


def ask_all(
    http: httpx.Client, model: str, tasks: Sequence[Task], tokens: int, concurrent: int
) -> list[Said]:
    """Each task as a greedy chat, so many at once. Raises ObservationError."""

    def one(task: Task) -> Said:
        answer = ask(http, "/v1/chat/completions", chat_body(model, task, tokens, temperature=0))
        try:
            return read_chat(answer)
        except (KeyError, IndexError, TypeError) as error:
            raise ObservationError(f"a chat answer cannot be read: {answer}"[:300]) from error

    return each(one, tasks, concurrent)


@dataclass(frozen=True)
class Pressure:
    """Requests that together outgrow the KV cache. count: of requests; prompt, output: tokens of
    each."""

    count: int
    prompt: int
    output: int

    @property
    def tokens(self) -> int:
        return self.count * (self.prompt + self.output)


def pressure(kv_tokens: int, engines: int, longest: int, seqs: int) -> Pressure | None:
    """The fewest requests that are all admitted by their prompts and then outgrow the cache, so
    that some are preempted. kv_tokens: of one engine. longest: max_model_len; what was said must
    still be a prompt, which leaves room for a token. seqs: requests that an engine runs at once.
    None where so few requests cannot."""
    count = max(4, -(-kv_tokens // (longest - longest // 8)))
    if count > seqs:
        return None
    prompt = int(0.9 * kv_tokens / count)
    output = min(longest - 1 - prompt, max(32, int(0.35 * kv_tokens / count)))
    if prompt < 8 or count * (prompt + output) <= kv_tokens:
        return None
    return Pressure(engines * count, prompt, output)
