"""Prompts of the checks that ask questions: small tasks with one right answer, for every lane."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acceptance.rehearsal.tasks import Task, held_out, is_right
from acceptance.rehearsal.words import NONCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORD = re.compile(rf"[{NONCE}]{{6}}")


@dataclass(frozen=True)
class Said:
    """A chat answer. content, reasoning: None where the server gives none. finish: why it ended.
    tokens: generated, as usage counts them."""

    content: str | None
    reasoning: str | None
    finish: str
    tokens: int
    id: str = ""

    @property
    def all(self) -> str:
        """Everything that was said."""
        return f"{self.reasoning or ''}\n{self.content or ''}"


def chat_body(model: str, task: Task, tokens: int, **more: Any) -> dict[str, Any]:
    """A chat request for a task, of at most so many tokens."""
    messages = [{"role": "user", "content": task.prompt}]
    return {"model": model, "messages": messages, "max_tokens": tokens, **more}


def read_chat(answer: Mapping[str, Any]) -> Said:
    """The one choice of a chat answer. Raises KeyError, IndexError or TypeError for others."""
    choice = answer["choices"][0]
    message = choice["message"]
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    content = message.get("content")
    # Without a reasoning parser, reasoning stands before the end of thinking.
    if reasoning is None and content and "</think>" in content:
        reasoning, _, content = content.partition("</think>")
    return Said(
        content=content,
        reasoning=reasoning,
        finish=str(choice.get("finish_reason")),
        tokens=int(answer["usage"]["completion_tokens"]),
        id=str(answer.get("id", "")),
    )


def tagged(count: int, seed: int = 79) -> list[Task]:
    """Tasks to say a nonce, each another one."""
    tasks, seen = [], set()
    for task in held_out("echo", 2 * count, seed):
        if task.answer not in seen:
            seen.add(task.answer)
            tasks.append(task)
    return tasks[:count]


def mixed_up(tasks: Sequence[Task], answers: Sequence[Said]) -> list[str]:
    """Whose answer holds another's nonce."""
    known = {task.answer for task in tasks}
    problems = []
    for task, said in zip(tasks, answers, strict=True):
        strange = (known & set(WORD.findall(said.all))) - {task.answer}
        if strange:
            problems.append(f"{task.answer} was answered with {', '.join(sorted(strange))}")
    return problems


def wrong(tasks: Sequence[Task], answers: Sequence[Said]) -> list[str]:
    """Whose content is not the task's one right answer."""
    return [
        f"{task.answer} was answered with {(said.content or '').strip()[:60]!r} ({said.finish})"
        for task, said in zip(tasks, answers, strict=True)
        if not is_right(task, said.content)
    ]
