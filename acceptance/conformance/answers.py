"""Whole answers: shape, usage, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from acceptance.conformance.said import said

if TYPE_CHECKING:
    import httpx

    from acceptance.conformance.said import Said

FINISHED = ("length", "stop")


def read_answer(answer: httpx.Response) -> dict[str, Any]:
    """The body of a 200. Raises AssertionError with status and text of anything else."""
    if answer.status_code != 200:
        raise AssertionError(f"HTTP {answer.status_code}: {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found


def _schema(kind: str) -> type[BaseModel]:
    """OpenAI's own, imported here: it takes most of a second, and --plan has no use for it."""
    from openai.types import Completion
    from openai.types.chat import ChatCompletion

    schemas: dict[str, type[BaseModel]] = {"chat": ChatCompletion, "completion": Completion}
    return schemas[kind]


def shape_problems(kind: str, answer: dict[str, Any], *, model: str, choices: int = 1) -> list[str]:
    """Against the schema of OpenAI's own client (vLLM's extra fields are let be), and what the
    schema leaves open: model echoed, choices numbered, each finished and not empty."""
    try:
        _schema(kind).model_validate(answer)
    except ValidationError as error:
        return [f"not OpenAI's schema: {_brief(error)}"]
    problems = []
    if answer["model"] != model:
        problems.append(f"model is {answer['model']!r}, not {model!r}")
    numbers = [choice["index"] for choice in answer["choices"]]
    if sorted(numbers) != list(range(choices)):
        return [*problems, f"choices are numbered {numbers}, not 0 to {choices - 1}"]
    for number in numbers:
        one = said(answer, number)
        if one.finish_reason not in FINISHED:
            problems.append(f"choice {number} finished by {one.finish_reason!r}")
        if not one.text:
            problems.append(f"choice {number} says nothing")
    if kind == "chat":
        roles = {choice["message"]["role"] for choice in answer["choices"]}
        if roles != {"assistant"}:
            problems.append(f"roles are {sorted(roles)}")
    return problems


def usage_problems(
    usage: dict[str, Any] | None, *, prompt: int | None = None, generated: int | None = None
) -> list[str]:
    """Counts of a usage block against what is known; total must be their sum in any case."""
    if not usage:
        return ["no usage"]
    try:
        counts = {k: usage[k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")}
    except KeyError as error:
        return [f"usage has no {error}"]
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        return [f"usage is no set of counts: {counts}"]
    problems = []
    known = {"prompt_tokens": prompt, "completion_tokens": generated}
    for name, count in known.items():
        if count is not None and counts[name] != count:
            problems.append(f"{name} is {counts[name]}, not {count}")
    if counts["total_tokens"] != counts["prompt_tokens"] + counts["completion_tokens"]:
        problems.append(f"total_tokens is not the sum: {counts}")
    return problems


def capped_problems(answer: dict[str, Any], cap: int) -> list[str]:
    """Of a request that nothing but its cap could end: exactly cap tokens, finished by length."""
    one = said(answer)
    problems = usage_problems(answer.get("usage"), generated=cap)
    if one.finish_reason != "length":
        problems.append(f"finished by {one.finish_reason!r}, not 'length'")
    return problems


def stop_piece(text: str, length: int = 3) -> str | None:
    """A piece from the middle of a text to stop at: printable ASCII, no space at its ends, so
    that no tokenizer's partial characters come into it. None when there is no such piece."""
    for start in [*range(len(text) // 3, len(text) - length), *range(1, len(text) // 3)]:
        piece = text[start : start + length]
        plain = piece.isascii() and piece.isprintable() and piece == piece.strip()
        if plain and text.find(piece) > 0:
            return piece
    return None


def stop_problems(answer: dict[str, Any], whole: str, piece: str, *, included: bool) -> list[str]:
    """whole: the same generation unstopped. Its text must end where piece first occurs."""
    one = said(answer)
    cut = whole.index(piece) + (len(piece) if included else 0)
    problems = []
    if one.text != whole[:cut]:
        problems.append(f"text is {one.text!r}, not {whole[:cut]!r}")
    if one.finish_reason != "stop":
        problems.append(f"finished by {one.finish_reason!r}, not 'stop'")
    if one.stop_reason != piece:
        problems.append(f"stop_reason is {one.stop_reason!r}, not {piece!r}")
    return problems


def stopped_problems(one: Said, whole: Said, token: int) -> list[str]:
    """whole: the same generation unstopped, whose tokens must end with the first such token."""
    expected = whole.tokens[: whole.tokens.index(token) + 1]
    problems = []
    if one.tokens != expected:
        problems.append(f"tokens are {one.tokens}, not {expected}")
    if (one.finish_reason, one.stop_reason) != ("stop", token):
        problems.append(f"ended by {one.finish_reason!r}, {one.stop_reason!r}, not token {token}")
    return problems


def _brief(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"
