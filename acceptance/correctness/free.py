"""Free generations: what they are asked for, and how they are read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from acceptance.correctness.asking import ask, each
from acceptance.correctness.degenerate import Text
from acceptance.correctness.prompts import read_chat
from acceptance.correctness.scoring import token_id
from acceptance.errors import ObservationError
from acceptance.rehearsal.tasks import held_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

TOP = 5
SEED = 55486
TEMPERATURE, TOP_P = 0.6, 0.95  # DeepSeek-R1's model card
OPEN = {
    "harbour": "Describe a harbour at dawn in two paragraphs.",
    "tides": "Explain to a child why there are tides.",
    "recipe": "Give a recipe for bread without yeast.",
    "code": "Write a Python function that merges two sorted lists, and explain it.",
    "proof": "Prove that the square root of two is irrational.",
    "letter": "Write a short letter that declines an invitation politely.",
    "german": "Erkläre in drei Sätzen, was ein Leuchtturm ist.",
    "chinese": "用两三句话介绍一下月亮。",
    "history": "What was the Hanseatic League? Answer in about 150 words.",
    "plan": "Plan a weekend of walking in the mountains, hour by hour.",
    "numbers": "List the first twenty prime numbers and say why 1 is not among them.",
    "story": "Tell a story of about 200 words in which a clock stops.",
}


def prompts(generated: bool) -> dict[str, str]:
    """Prompts by name. generated: of the suite's own checkpoint, which knows its tasks alone."""
    if not generated:
        return dict(OPEN)
    kinds = ("arithmetic", "copy", "lookup", "echo")
    return {
        f"{kind}-{number}": task.prompt
        for kind in kinds
        for number, task in enumerate(held_out(kind, 4, SEED))
    }


def write_freely(
    http: httpx.Client, model: str, asked: Mapping[str, str], tokens: int, concurrent: int = 16
) -> list[Text]:
    """Each prompt answered once, sampled as the model card says. Raises ObservationError."""

    def one(item: tuple[str, str]) -> Text:
        name, prompt = item
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
            "seed": SEED,
            "logprobs": True,
            "top_logprobs": TOP,
            "return_tokens_as_token_ids": True,
        }
        return read_text(ask(http, "/v1/chat/completions", body), name)

    return each(one, asked.items(), concurrent)


def read_text(answer: Mapping[str, Any], name: str) -> Text:
    """A chat answer with the log-probabilities of its tokens. Raises ObservationError."""
    try:
        said = read_chat(answer)
        listed = (answer["choices"][0].get("logprobs") or {}).get("content") or []
        tokens = tuple(token_id(entry["token"]) for entry in listed)
        left = [entropy([top["logprob"] for top in entry["top_logprobs"]]) for entry in listed]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ObservationError(f"{name}: a chat answer cannot be read: {answer}"[:300]) from error
    return Text(
        name=name,
        content=said.content,
        reasoning=said.reasoning,
        finish=said.finish,
        tokens=tokens,
        count=said.tokens,
        entropy=sum(left) / len(left) if left else None,
    )


def entropy(logprobs: Sequence[float]) -> float:
    """Nats that the listed alternatives leave open, all others one bucket."""
    shares = [math.exp(value) for value in logprobs]
    shares.append(max(0.0, 1 - sum(shares)))
    return -sum(share * math.log(share) for share in shares if share > 0)
