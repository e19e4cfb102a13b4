"""Answers and chunks in vLLM 0.32's form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from acceptance.simulation.bodies import Chat, Completion
from acceptance.simulation.language import Distribution, Generated, decode, digest, name, piece

if TYPE_CHECKING:
    from collections.abc import Sequence

Body = Chat | Completion
COMPACT = (",", ":")


@dataclass(frozen=True)
class Head:
    """What every part of one answer repeats. created: seconds."""

    id: str
    created: int
    model: str
    fingerprint: str

    def of(self, name: str) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}


def usage(made: Sequence[Generated], prompts: Sequence[list[int]]) -> dict[str, Any]:
    """Counts of a whole request; prompts: each counted once, however many choices it has."""
    prompt, generated = sum(map(len, prompts)), sum(len(one.tokens) for one in made)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + generated,
        "completion_tokens": generated,
        "prompt_tokens_details": None,
    }


def whole(
    body: Body, head: Head, made: Sequence[Generated], prompts: Sequence[list[int]]
) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    is_chat = isinstance(body, Chat)
    choices = [_choice(body, one, index) for index, one in enumerate(made)]
    answer = {
        **head.of("chat.completion" if is_chat else "text_completion"),
        "choices": choices,
        "system_fingerprint": head.fingerprint,
        "usage": usage(made, prompts),
    }
    if is_chat:
        answer["prompt_logprobs"] = _prompt_logprobs(body, made[0].prompt)
        answer["prompt_token_ids"] = prompts[0] if body.return_token_ids else None
    return answer


def _choice(body: Body, one: Generated, index: int) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": index,
        "logprobs": _logprobs(body, one, slice(None)),
        "finish_reason": one.finish_reason,
        "stop_reason": one.stop_reason,
        "token_ids": one.tokens if body.return_token_ids else None,
    }
    if isinstance(body, Chat):
        message = {"role": "assistant", "content": one.shown, "reasoning": None}
        return {**choice, "message": message}
    text = decode(one.prompt) + one.shown if body.echo else one.shown
    return {
        **choice,
        "text": text,
        "prompt_logprobs": _prompt_logprobs(body, one.prompt),
        "prompt_token_ids": one.prompt if body.return_token_ids else None,
    }


def _prompt_logprobs(body: Body, prompt: list[int]) -> list[Any] | None:
    """Per position the prompt's own token and the likeliest ones; None for the first."""
    if body.prompt_logprobs is None:
        return None
    rows: list[Any] = [None]
    state = 0
    for before, token in pairwise(prompt):
        state = digest([before], state)
        distribution = Distribution(state)
        row = {
            str(other): _entry(other, value, rank)
            for rank, (other, value) in enumerate(distribution.top(body.prompt_logprobs), start=1)
        }
        own_rank = distribution.rank(token)
        rank = len(prompt) if own_rank is None else own_rank + 1
        row.setdefault(str(token), _entry(token, distribution.logprob(token), rank))
        rows.append(row)
    return rows


def _entry(token: int, value: float, rank: int) -> dict[str, Any]:
    return {"logprob": value, "rank": rank, "decoded_token": name(token)}


def _logprobs(body: Body, one: Generated, part: slice) -> dict[str, Any] | None:
    """Log-probabilities of a part of the generated tokens."""
    if body.listed is None:
        return None
    start = part.start or 0
    pairs = list(zip(one.states[part], one.tokens[part], strict=True))
    if isinstance(body, Chat):
        return {"content": [_chat_entry(body, state, token) for state, token in pairs]}
    names = [_name(body, token) for _, token in pairs]
    offset = len(decode(one.prompt)) if body.echo else 0
    before = offset + len(decode(one.tokens[:start]))
    offsets = []
    for _, token in pairs:
        offsets.append(before)
        before += len(piece(token))
    found: dict[str, Any] = {
        "tokens": names,
        "token_logprobs": [Distribution(state).logprob(token) for state, token in pairs],
        "top_logprobs": [
            {_name(body, t): value for t, value in _listed(state, token, body.listed)}
            for state, token in pairs
        ],
        "text_offset": offsets,
    }
    if body.echo:
        found = _with_prompt(body, one, found)
    return found


def _with_prompt(body: Completion, one: Generated, found: dict[str, Any]) -> dict[str, Any]:
    """The prompt's own log-probabilities before those of the answer, as echo has them."""
    state, values, tops, offsets, at = 0, [None], [None], [0], len(piece(one.prompt[0]))
    for before, token in pairwise(one.prompt):
        state = digest([before], state)
        listed = _listed(state, token, body.listed or 0)
        values.append(Distribution(state).logprob(token))  # type: ignore[arg-type]
        tops.append({_name(body, t): v for t, v in listed})  # type: ignore[arg-type]
        offsets.append(at)
        at += len(piece(token))
    return {
        "tokens": [_name(body, token) for token in one.prompt] + found["tokens"],
        "token_logprobs": values + found["token_logprobs"],
        "top_logprobs": tops + found["top_logprobs"],
        "text_offset": offsets + found["text_offset"],
    }


def _listed(state: int, token: int, count: int) -> list[tuple[int, float]]:
    """The likeliest tokens, and the chosen one where it is not among them."""
    distribution = Distribution(state)
    top = distribution.top(count)
    if token not in [other for other, _ in top]:
        top.append((token, distribution.logprob(token)))
    return top


def _chat_entry(body: Chat, state: int, token: int) -> dict[str, Any]:
    def one(other: int, value: float) -> dict[str, Any]:
        name = _name(body, other)
        return {"token": name, "logprob": value, "bytes": list(name.encode())}

    distribution = Distribution(state)
    top = [one(other, value) for other, value in distribution.top(body.top_logprobs or 0)]
    return {**one(token, distribution.logprob(token)), "top_logprobs": top}


def _name(body: Body, token: int) -> str:
    return f"token_id:{token}" if body.return_tokens_as_token_ids else piece(token)


class Chunks:
    """The events of one stream. Bodies that ask for nothing special take a path of string pieces
    alone: at 512 streams the server writes thousands of chunks a second."""

    def __init__(self, body: Body, head: Head, choices: int) -> None:
        self.body = body
        self.head = head
        self.is_chat = isinstance(body, Chat)
        self.name = "chat.completion.chunk" if self.is_chat else "text_completion"
        self.plain = body.listed is None and not body.return_token_ids
        self._starts, self._end = [], ""
        for index in range(choices):
            marked = self._event(self._shaped(index, "\0"))
            start, self._end = marked.split(json.dumps("\0"))
            self._starts.append(start)

    def roles(self, choices: int) -> bytes:
        """What a chat's stream begins with."""
        if not self.is_chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        parts = [
            {"index": i, "delta": delta, "logprobs": None, "finish_reason": None}
            for i in range(choices)
        ]
        return "".join(map(self._event, parts)).encode()

    def tokens(self, index: int, one: Generated, begin: int, end: int) -> bytes:
        """Tokens [begin, end) of a choice, with its end where they are the last."""
        text = one.shown[begin:end] if end < len(one.tokens) else one.shown[begin:]
        last = end == len(one.tokens)
        if self.plain and not last:
            return f"{self._starts[index]}{json.dumps(text)}{self._end}".encode()
        part = self._shaped(index, text)
        part["logprobs"] = _logprobs(self.body, one, slice(begin, end))
        if self.body.return_token_ids:
            part["token_ids"] = one.tokens[begin:end]
        if last:
            part["finish_reason"], part["stop_reason"] = one.finish_reason, one.stop_reason
        return self._event(part).encode()

    def usage(self, counts: dict[str, Any]) -> bytes:
        """The last chunk of a stream that asked for usage."""
        chunk = {**self.head.of(self.name), "choices": [], "usage": counts}
        return _sse({**chunk, "system_fingerprint": self.head.fingerprint}).encode()

    def error(self, message: str) -> bytes:
        """What vLLM sends into a stream whose engine fails."""
        told = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
        return _sse({"error": told}).encode()

    def _shaped(self, index: int, text: str) -> dict[str, Any]:
        part: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": None}
        part["stop_reason"] = None
        if self.is_chat:
            return {**part, "delta": {"content": text}}
        return {**part, "text": text}

    def _event(self, part: dict[str, Any]) -> str:
        return _sse({**self.head.of(self.name), "choices": [part]})


def _sse(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, separators=COMPACT)}\n\n"
