"""Tasks: one right answer each, no held-out one among the training ones, needles where asked."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from acceptance.rehearsal.tasks import (
    KINDS,
    Call,
    Task,
    endless,
    held_out,
    is_right,
    needle,
    training,
)
from acceptance.rehearsal.words import NONCE, THINGS

ROOT = Path(__file__).parents[2]


def about(task: Task) -> str:
    """What two tasks share that are the same but for the wording."""
    if task.kind == "arithmetic":
        one, two = task.thought.split(":")[0].split(" + ")
        return f"{min(int(one), int(two))}+{max(int(one), int(two))}"
    if task.call:
        return f"{task.call}"
    return task.thought if task.kind == "lookup" else task.answer


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_tasks_were_never_trained_on(kind: str) -> None:
    held = {about(task) for task in held_out(kind, 200)}
    trained = training(kind, 1500) + list(islice(endless(kind, seed=3), 1500))
    assert len(held) > 90
    assert not held & {about(task) for task in trained}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_tasks(kind: str) -> None:
    assert held_out(kind, 20) == held_out(kind, 20)
    assert held_out(kind, 20) == held_out(kind, 40)[:20]
    assert held_out(kind, 20) != held_out(kind, 20, seed=1)
    assert len({task.prompt + json.dumps(task.tools) for task in held_out(kind, 100)}) == 100


def test_another_process_has_the_same_tasks() -> None:
    code = "from acceptance.rehearsal.tasks import *; print([held_out(k, 3)[2] for k in KINDS])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str([held_out(kind, 3)[2] for kind in KINDS])


def test_answers_are_right() -> None:
    for task in held_out("arithmetic", 100):
        one, two = task.prompt.removeprefix("What is ").split("?")[0].split(" + ")
        assert int(task.answer) == int(one) + int(two)
        assert task.thought.startswith(f"{one} + {two}: ")
    for task in held_out("copy", 50):
        assert task.prompt.endswith(f":\n{task.answer}")
    for task in held_out("echo", 50):
        assert set(task.answer) <= set(NONCE)
        assert task.answer in task.prompt
    for task in held_out("lookup", 50):
        [thing] = [name for name in THINGS if f"code of the {name}?" in task.prompt]
        assert task.prompt.count(f"The code of the {thing} is {task.answer}.") == 1
        assert task.prompt.count("The code of the") > 1


def test_a_tool_task_offers_what_is_to_be_called() -> None:
    for task in held_out("tool", 100):
        assert task.call is not None
        offered = {tool["function"]["name"]: tool["function"] for tool in task.tools}
        assert len(offered) == len(task.tools)
        called = offered[task.call.name]
        assert called["parameters"]["required"] == list(task.call.arguments)
        assert task.call.name in task.prompt


@pytest.mark.parametrize("depth", [0, 0.25, 0.5, 0.75, 1])
def test_a_needle_lies_where_it_should(depth: float) -> None:
    task = needle(600, depth, seed=1)
    before = task.prompt.index(task.thought) / (len(task.prompt) - 120)
    assert abs(before - depth) < 0.06
    assert 600 <= len(task.prompt.split()) < 640
    assert task.prompt.count("code of the") == 2
    assert task == needle(600, depth, seed=1)
    assert task.answer != needle(600, depth, seed=2).answer


def test_a_needle_needs_no_filler() -> None:
    assert needle(0, 0.5, 0).prompt.startswith("The code of the")


def test_what_is_right() -> None:
    said = Task("echo", "Say X.", "X")
    assert is_right(said, "\n\nX\n")
    assert not is_right(said, "X.")
    assert not is_right(said, None)
    assert not is_right(said, "X", [Call("get_time", {"city": "Rome"})])
    called = Task("tool", "Call.", "", call=Call("get_time", {"city": "Rome"}))
    assert is_right(called, None, [Call("get_time", {"city": "Rome"})])
    assert not is_right(called, None)
    assert not is_right(called, None, [Call("get_time", {"city": "Oslo"})])
    assert not is_right(called, None, [Call("get_time", {"city": "Rome"})] * 2)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="no kind 'poem'"):
        held_out("poem", 1)
    for words, depth in ((10, 1.1), (10, -0.1), (-1, 0.5)):
        with pytest.raises(ValueError, match="no needle"):
            needle(words, depth, 0)
