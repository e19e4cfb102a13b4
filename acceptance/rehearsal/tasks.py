"""Small tasks with one right answer, asked of every lane and learned by the rehearsal's model.

Prompts are plain instructions that a grown model answers in the same words. A task belongs to the
held-out part or to the training part by a hash of what it is about (the two addends, the text to
repeat, the fact asked for), so that no wording of a held-out task was ever trained on.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acceptance.rehearsal.words import (
    CITIES,
    DIGITS,
    KEYS,
    THINGS,
    TOPICS,
    VERBS,
    nonce,
    sentence,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KINDS = ("arithmetic", "copy", "lookup", "echo", "tool")
HELD_OUT_SHARE = 8  # one in eight
LARGEST = 99  # addend
NEEDLE = "The code of the {thing} is {code}."


@dataclass(frozen=True)
class Call:
    """A tool call: the function's name and its arguments."""

    name: str
    arguments: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """What to ask and the one right answer.

    prompt: the user message. answer: the content without surrounding white space, "" where a call
    is wanted. tools: as the OpenAI API takes them. call: the right call, of tasks with tools.
    thought: the line that the rehearsal's model is taught to think before it answers.
    """

    kind: str
    prompt: str
    answer: str
    tools: tuple[Mapping[str, Any], ...] = ()
    call: Call | None = None
    thought: str = field(default="", compare=False)


def held_out(kind: str, n: int, seed: int = 0) -> list[Task]:
    """n different tasks of a kind, none of which the rehearsal's model was trained on."""
    return _take(kind, n, seed, held=True)


def training(kind: str, n: int, seed: int = 0) -> list[Task]:
    """n different tasks of a kind from the other part."""
    return _take(kind, n, seed, held=False)


def needle(filler_words: int, depth: float, seed: int) -> Task:
    """One held-out fact within about filler_words words of filler, asked for at the end.

    depth: 0 puts it first, 1 last. filler_words: the rehearsal's model has 1.1 tokens a word.
    """
    if not 0 <= depth <= 1 or filler_words < 0:
        raise ValueError(f"no needle at depth {depth} of {filler_words} words")
    rng = random.Random(f"needle {filler_words} {depth} {seed}")
    return _needle(rng, filler_words, depth, held=True)


def training_needle(rng: random.Random, filler_words: int, depth: float) -> Task:
    """As needle, of the training part."""
    return _needle(rng, filler_words, depth, held=False)


def _needle(rng: random.Random, filler_words: int, depth: float, *, held: bool) -> Task:
    facts = _facts(rng, 1, held=held)
    return _asked(facts, 0, _filler(rng, filler_words), depth)


def is_right(task: Task, content: str | None, calls: tuple[Call, ...] | list[Call] = ()) -> bool:
    """Whether content (white space around it aside) and calls are the right answer to a task."""
    if task.call is not None:
        return list(calls) == [task.call]
    return not calls and (content or "").strip() == task.answer


def is_held_out(kind: str, about: str) -> bool:
    """Which part a task about this belongs to."""
    digest = hashlib.sha256(f"{kind}\n{about}".encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def _take(kind: str, n: int, seed: int, *, held: bool) -> list[Task]:
    if kind not in _MAKERS:
        raise ValueError(f"no kind {kind!r} of task: {', '.join(KINDS)}")
    rng = random.Random(f"{kind} {seed} {held}")
    found: dict[str, Task] = {}
    while len(found) < n:
        task = _MAKERS[kind](rng, held)
        found.setdefault(f"{task.prompt}\n{json.dumps(task.tools)}", task)
    return list(found.values())


def _drawn(rng: random.Random, kind: str, held: bool, draw: Any) -> Any:
    """The first of the draws whose text, its first element, lies in the wanted part."""
    while True:
        made = draw()
        if is_held_out(kind, made[0]) == held:
            return made


def _arithmetic(rng: random.Random, held: bool) -> Task:
    def draw() -> tuple[str, int, int]:
        one, two = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
        return f"{min(one, two)}+{max(one, two)}", one, two

    _, one, two = _drawn(rng, "arithmetic", held, draw)
    ones, tens = one % 10 + two % 10, one // 10 + two // 10
    carry = ones // 10
    steps = (
        f"{one % 10} + {two % 10} = {ones}, {one // 10} + {two // 10} + {carry} = {tens + carry}."
    )
    return Task(
        kind="arithmetic",
        prompt=f"What is {one} + {two}? Answer with the number only.",
        answer=str(one + two),
        thought=f"{one} + {two}: {steps}",
    )


def _copy(rng: random.Random, held: bool) -> Task:
    def draw() -> tuple[str]:
        words = rng.sample(THINGS, rng.randint(2, 6))
        for _ in range(rng.randint(0, 2)):
            words.insert(rng.randint(0, len(words)), nonce(rng, 3))
        return (" ".join(words),)

    (text,) = _drawn(rng, "copy", held, draw)
    return Task(
        kind="copy",
        prompt=f"Repeat this text exactly and write nothing else:\n{text}",
        answer=text,
        thought="I repeat the text.",
    )


def _echo(rng: random.Random, held: bool) -> Task:
    (text,) = _drawn(rng, "echo", held, lambda: (nonce(rng),))
    return Task(
        kind="echo",
        prompt=f"Say {text} and nothing else.",
        answer=text,
        thought=f"I say {text}.",
    )


def _lookup(rng: random.Random, held: bool) -> Task:
    facts = _facts(rng, rng.randint(2, 6), held=held)
    return _asked(facts, rng.randrange(len(facts)), [], 0.0)


def _facts(rng: random.Random, n: int, *, held: bool) -> list[tuple[str, str]]:
    """n different things, each with a code of four different digits."""

    def draw(thing: str) -> tuple[str, str, str]:
        code = "".join(rng.sample(DIGITS, 4))
        return f"{thing} {code}", thing, code

    things = rng.sample(THINGS, n)
    return [_drawn(rng, "lookup", held, lambda thing=thing: draw(thing))[1:] for thing in things]


def _filler(rng: random.Random, words: int) -> list[str]:
    made: list[str] = []
    count = 0
    while count < words:
        made.append(sentence(rng))
        count += len(made[-1].split())
    return made


def _asked(facts: list[tuple[str, str]], which: int, filler: list[str], depth: float) -> Task:
    """Facts within filler, the first of them at depth, and a question about one of them."""
    thing, code = facts[which]
    said = [NEEDLE.format(thing=name, code=value) for name, value in facts]
    place = round(depth * len(filler))
    lines = [*filler[:place], *said, *filler[place:]]
    return Task(
        kind="lookup",
        prompt=f"{' '.join(lines)}\nWhat is the code of the {thing}? Answer with the code only.",
        answer=code,
        thought=NEEDLE.format(thing=thing, code=code),
    )


def _tool(rng: random.Random, held: bool) -> Task:
    def draw() -> tuple[str, list[tuple[str, str]], str]:
        offered = [
            (f"{rng.choice(VERBS)}_{topic}", rng.choice(KEYS))
            for topic in rng.sample(TOPICS, rng.randint(1, 3))
        ]
        city = rng.choice(CITIES)
        name, key = offered[0]
        return f"{name} {key} {city}", offered, city

    _, offered, city = _drawn(rng, "tool", held, draw)
    name, key = offered[0]
    shuffled = rng.sample(offered, len(offered))
    return Task(
        kind="tool",
        prompt=f"Call the tool {name} with {key} {city}.",
        answer="",
        tools=tuple(_described(*tool) for tool in shuffled),
        call=Call(name, {key: city}),
        thought=f"I call {name} with {key} {city}.",
    )


def _described(name: str, key: str) -> dict[str, Any]:
    verb, topic = name.split("_")
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{verb.capitalize()} the {topic} of a {key}.",
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string"}},
                "required": [key],
            },
        },
    }


_MAKERS = {
    "arithmetic": _arithmetic,
    "copy": _copy,
    "lookup": _lookup,
    "echo": _echo,
    "tool": _tool,
}


def endless(kind: str, seed: int = 0) -> Iterator[Task]:
    """Training tasks of a kind without end; the same ones may come again."""
    rng = random.Random(f"{kind} {seed} endless")
    while True:
        yield _MAKERS[kind](rng, False)
