"""A fake model that learned its lessons: it thinks, answers small tasks, calls tools, and keeps to
constraints; and the parsers that take its answers apart."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fake_tokens import (
    ASSISTANT,
    CALL,
    CALL_END,
    CALLS,
    CALLS_END,
    EOS,
    MARKS,
    SEP,
    THINK_END,
    encode,
    spelled,
)

from acceptance.rehearsal.tasks import Call
from suites.conformance.tasks import CALLS as TOOL_TASKS
from suites.conformance.tasks import PLAIN

if TYPE_CHECKING:
    from acceptance.rehearsal.tasks import Task

_ids = itertools.count()
TASKS: dict[str, Task] = {task.prompt: task for task in (*PLAIN, *TOOL_TASKS)}


@dataclass
class Parsed:
    """What the parsers make of a text. calls: as in a message."""

    reasoning: str | None
    content: str | None
    calls: list[dict[str, Any]] = field(default_factory=list)


def script(body: dict[str, Any], breaks: set[str]) -> list[int] | None:
    """The tokens of an answer to a task; None for anything else."""
    said = (body.get("messages") or [{}])[-1].get("content") or ""
    tasks = [task for prompt, task in TASKS.items() if prompt in said]
    if not tasks or body.get("max_tokens", 0) < 100:
        return None
    thought = "" if "thinks-not" in breaks else f"{tasks[0].thought}\n"
    budget = body.get("thinking_token_budget")
    if budget is not None and "budget-ignored" not in breaks:
        thought = thought[:budget]
    answer = _answer(body, tasks, breaks)
    if "answers-nothing" in breaks:
        answer = ""
    mark = "" if "never-done-thinking" in breaks else MARKS[THINK_END]
    if "thinks-twice" in breaks:
        mark = f"{mark}{mark}"
    if "constrains-thoughts" in breaks and answer:
        thought = answer
    return [*encode(f"{thought}{mark}\n\n{answer}"), EOS]


def _answer(body: dict[str, Any], tasks: list[Task], breaks: set[str]) -> str:
    bound = body.get("structured_outputs") or {}
    form = (body.get("response_format") or {}).get("type")
    if (bound or form) and "constraints-ignored" not in breaks:
        if bound.get("regex"):
            return "123"
        if bound.get("choice"):
            return str(bound["choice"][0])
        if bound.get("grammar"):
            return "north"
        return "{}" if form == "json_object" else '{"kind":"number","sure":true}'
    calls = _calls(body, tasks, breaks)
    if calls:
        return MARKS[CALLS] + "\n".join(_spell(call) for call in calls) + MARKS[CALLS_END]
    return tasks[0].answer or "No."


def _calls(body: dict[str, Any], tasks: list[Task], breaks: set[str]) -> list[Call]:
    choice, tools = body.get("tool_choice", "auto"), body.get("tools") or []
    if not tools or "calls-nothing" in breaks:
        return []
    if choice == "none" and "choice-ignored" not in breaks:
        return []
    if isinstance(choice, dict) and "choice-ignored" not in breaks:
        name = choice["function"]["name"]
        wanted = next(t["function"] for t in tools if t["function"]["name"] == name)
        return [Call(name, dict.fromkeys(wanted["parameters"]["required"], "Paris"))]
    offered = {tool["function"]["name"] for tool in tools}
    found = [task.call for task in tasks if task.call and task.call.name in offered]
    return found[:1] if "calls-once" in breaks else found


def _spell(call: Call) -> str:
    arguments = json.dumps(dict(call.arguments))
    return (
        f"{MARKS[CALL]}function{MARKS[SEP]}{call.name}\n```json\n{arguments}\n```{MARKS[CALL_END]}"
    )


def parse(tokens: list[int], body: dict[str, Any], breaks: set[str]) -> Parsed:
    """As deepseek_r1 and deepseek_v3 take a text apart."""
    text = spelled([token for token in tokens if token > ASSISTANT])
    thought, found, rest = text.partition(MARKS[THINK_END])
    reasoning: str | None = thought
    content: str | None = rest if found else None
    if "no-reasoning-parser" in breaks:
        reasoning, content = None, text
    calls: list[dict[str, Any]] = []
    if content and MARKS[CALLS] in content and "no-tool-parser" not in breaks:
        content, _, raw = content.partition(MARKS[CALLS])
        calls = [_call(one, n, breaks) for n, one in enumerate(raw.split(MARKS[CALL])[1:])]
        if "raw-call-stays" in breaks:
            content += MARKS[CALLS]
        content = content.strip() or None
    if not body.get("include_reasoning", True) and "reasoning-not-hidden" not in breaks:
        reasoning = None
    return Parsed(reasoning or None, content, calls)


def _call(raw: str, number: int, breaks: set[str]) -> dict[str, Any]:
    head, _, rest = raw.partition("\n```json\n")
    arguments = rest.partition("\n```")[0]
    if "arguments-cut" in breaks:
        arguments = arguments[:-1]
    ident = "call" if "one-call-id" in breaks else f"call_{next(_ids)}_{number}"
    name = "hammer" if "calls-unknown-tool" in breaks else head.partition(MARKS[SEP])[2]
    return {
        "id": ident,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
