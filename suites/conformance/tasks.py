"""Small tasks that a trained model ends by itself: asked once, read by every check of reasoning,
structured outputs and tools. Rightness is for correctness to judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acceptance.conformance.said import said
from acceptance.rehearsal.tasks import held_out
from suites.conformance.asking import Requests

if TYPE_CHECKING:
    from acceptance.conformance.said import Said
    from acceptance.rehearsal.tasks import Task
    from suites.conformance.asking import Answers

SEED = 5
KINDS = ("arithmetic", "copy", "lookup", "echo")
PLAIN = [task for kind in KINDS for task in held_out(kind, 2, SEED)]
CALLS = held_out("tool", 6, SEED)


def room(answers: Answers) -> int:
    """max_tokens of a request that should end by itself."""
    return answers.room


def asked(task: Task, **changes: Any) -> dict[str, Any]:
    """Changes to a chat request that make it ask a task."""
    wanted: dict[str, Any] = {"messages": [{"role": "user", "content": task.prompt}]}
    if task.tools:
        wanted |= {"tools": [dict(tool) for tool in task.tools], "tool_choice": "auto"}
    return {**wanted, "max_tokens": room, "return_token_ids": True, **changes}


TOGETHER = Requests()
REASONED = [(task, TOGETHER.whole("chat", **asked(task))) for task in PLAIN]
COMPARED = Requests(alone=True)
WHOLE = COMPARED.whole("chat", **asked(PLAIN[0]))
STREAMED = COMPARED.stream("chat", **asked(PLAIN[0]))


def ended(answers: Answers) -> list[tuple[Task, Said]]:
    """Every plain task with what was said to it."""
    return [(task, said(answers.whole(request))) for task, request in REASONED]
