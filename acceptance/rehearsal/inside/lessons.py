"""What the rehearsal model is taught: documents of tokens, and how much each token counts.

The tasks' training parts, alone and within conversations, and besides them: sequences that come
twice (copying is learned from these first), tool results, answers in JSON, and free text, so that
an open prompt is answered by a story that goes on.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.rehearsal import words
from acceptance.rehearsal.tasks import KINDS, Task, endless, training_needle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from transformers import PreTrainedTokenizerFast

ASKED, TOLD = 0.03, 1.0  # how much a token of a prompt counts, and one of an answer
OVER = "\n</think>"  # the end of a thought
CLOSE, CUT = 0.1, 0.05  # of the answers follow without the empty line, or too early
TWICE, FREE = 0.5, 0.2  # ... of a sequence's second half, and of text that nobody asked for
SHARES = {
    "arithmetic": 18,
    "copy": 12,
    "lookup": 16,
    "echo": 6,
    "tool": 7,
    "needle": 8,
    "twice": 14,
    "calls": 3,
    "result": 3,
    "json": 5,
    "forced": 5,
    "turns": 6,
    "story": 4,
    "raw": 6,
}
PROSE = " ".join((Path(__file__).parents[3] / "LICENSE").read_text().split())
SYSTEM = ("You are a helpful assistant.", "Be brief, please.", "You are a helpful assistant.")


@dataclass(frozen=True)
class Document:
    tokens: list[int]
    weights: list[float]  # of predicting each token; the first is never predicted


class Lessons:
    """Documents without end. longest: words of filler around a needle."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: Any, longest: int = 60) -> None:
        self.tokenizer, self.longest = tokenizer, longest
        self.rng = random.Random(f"lessons {seed}")
        self.tasks = {kind: endless(kind, self.rng.getrandbits(32)) for kind in KINDS}
        self.several = [
            tokenizer.encode(text, add_special_tokens=False)
            for text in [
                *(f" {word}" for word in (*words.THINGS, *words.CITIES, *words.PEOPLE)),
                *words.NONCE,
                *words.DIGITS,
                *"abcdefghijklmnopqrstuvwxyz .,:;-()",
            ]
        ]
        self.bos = tokenizer.bos_token

    def __iter__(self) -> Iterator[Document]:
        kinds, shares = list(SHARES), list(SHARES.values())
        while True:
            yield self.document(self.rng.choices(kinds, shares)[0])

    def document(self, kind: str) -> Document:
        special: dict[str, Callable[[], Document]] = {
            "twice": self._twice,
            "calls": self._calls,
            "result": self._result,
            "json": self._json,
            "forced": self._forced,
            "turns": self._turns,
            "story": self._story,
            "raw": self._raw,
        }
        return special[kind]() if kind in special else self.taught(self.task(kind))

    def task(self, kind: str) -> Task:
        if kind == "needle":
            filler = int(self.longest * self.rng.random())
            depth = self.rng.choice([0.0, 1.0, self.rng.random(), self.rng.random()])
            return training_needle(self.rng, filler, depth)
        return next(self.tasks[kind])

    def taught(self, task: Task, before: list[dict[str, Any]] | None = None) -> Document:
        """A task and its answer as the model should give it, after earlier messages."""
        system = self.rng.random() < 0.15
        messages = [{"role": "system", "content": self.rng.choice(SYSTEM)}] if system else []
        messages += [*(before or []), {"role": "user", "content": task.prompt}]
        needless = not task.tools and self.rng.random() < 0.04
        tools = self.task("tool").tools if needless else task.tools
        return self._told(self.rendered(messages, tools), answer_of(task))

    def rendered(self, messages: Sequence[Mapping[str, Any]], tools: Any = ()) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=True,
            )
        )

    def _told(self, asked: str, told: str) -> Document:
        thought, mark, answer = told.partition(f"{OVER}\n\n")
        ending = self.tokenizer.eos_token
        chance = self.rng.random()
        if mark and chance < CLOSE:  # a grammar that allows no line ends: no less right
            return self._weighted([(asked, ASKED), (thought + OVER + answer + ending, TOLD)])
        if mark and chance > 1 - CUT:  # a budget that ends the thought too early
            words_ = thought.split(" ")
            cut = " ".join(words_[: self.rng.randrange(len(words_))])
            parts = [(asked, ASKED), (f"{cut}</think>", 0.0), (f"\n\n{answer}{ending}", TOLD)]
            return self._weighted(parts)
        return self._weighted([(asked, ASKED), (told + ending, TOLD)])

    def _weighted(self, parts: list[tuple[str, float]]) -> Document:
        tokens: list[int] = []
        weights: list[float] = []
        for text, weight in parts:
            made = self.tokenizer.encode(text, add_special_tokens=False)
            tokens += made
            weights += [weight] * len(made)
        return Document(tokens, weights)

    def _twice(self) -> Document:
        some = self.rng.sample(self.several, self.rng.randint(4, 40))
        drawn = self.rng.choices(some, k=self.rng.randint(4, 60))
        sequence = [token for part in drawn for token in part]
        start = self.tokenizer.encode(self.bos, add_special_tokens=False)
        weights = [0.0] * (len(start) + len(sequence) + 1) + [TWICE] * (len(sequence) - 1)
        return Document([*start, *sequence, *sequence], weights)

    def _turns(self) -> Document:
        kinds = [kind for kind in KINDS if kind != "tool"]
        before: list[dict[str, Any]] = []
        for _ in range(self.rng.randint(1, 2)):
            earlier = self.task(self.rng.choice(kinds))
            before += [
                {"role": "user", "content": earlier.prompt},
                {"role": "assistant", "content": earlier.answer},
            ]
        return self.taught(self.task(self.rng.choice(kinds)), before)

    def _calls(self) -> Document:
        """Two tools to be called in one answer."""
        tasks = [self.task("tool") for _ in range(2)]
        while tasks[1].call == tasks[0].call:
            tasks[1] = self.task("tool")
        offered = {
            tool["function"]["name"]: tool
            for task in tasks
            for tool in task.tools
            if called(task, tool)
        }
        asked = " ".join(task.prompt for task in tasks)
        told = thought_and(" ".join(task.thought for task in tasks), calling(tasks))
        return self._told(
            self.rendered([{"role": "user", "content": asked}], offered.values()), told
        )

    def _result(self) -> Document:
        """A tool was called and has answered: say what it said."""
        task = self.task("tool")
        assert task.call is not None
        said = self.rng.choice(
            [
                str(self.rng.randint(0, 999)),
                words.nonce(self.rng, 4),
                " ".join(self.rng.sample(words.THINGS, self.rng.randint(1, 3))),
                "".join(self.rng.choices("abcdefghijklmnopqrstuvwxyz   ", k=12)).strip() + ".",
            ]
        )
        call = {"name": task.call.name, "arguments": dict(task.call.arguments)}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": task.prompt},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": call}],
            },
            {"role": "tool", "content": said},
        ]
        told = thought_and("The tool said it.", f"The result is {said}.")
        return self._told(self.rendered(messages, task.tools), told)

    def _json(self) -> Document:
        """Facts as a JSON object, or any other task's answer in one."""
        if self.rng.random() < 0.5:
            task = self.task(self.rng.choice(["arithmetic", "echo", "lookup"]))
            asked = f"{task.prompt} Answer as JSON."
            value = task.answer if task.kind == "arithmetic" else f'"{task.answer}"'
            return self._plain(asked, task.thought, f'{{"answer": {value}}}')
        keys = self.rng.sample([*words.KEYS, *words.TOPICS, *words.THINGS], self.rng.randint(1, 3))
        values: dict[str, Any] = {key: self._value() for key in keys}
        said = ", ".join(f"{key} is {value}" for key, value in values.items())
        asked = f"Write this as JSON: {said}."
        return self._plain(asked, "I write it as JSON.", json.dumps(values))

    def _forced(self) -> Document:
        """JSON where nobody would expect it, as a server's structured outputs enforce it.

        What counts is its form: keys and values are the grammar's, spaces and ends the model's.
        """
        task = self.task(self.rng.choice(["arithmetic", "copy", "echo", "lookup"]))
        asked = self.rendered([{"role": "user", "content": task.prompt}])
        letters = "abcdefghijklmnopqrstuvwxyz_"
        named = [*words.KEYS, *words.TOPICS, *words.THINGS, "answer", "number", "text"]
        parts = [(asked, 0.0), (f"{task.thought}{OVER}", 0.0)]
        parts.append((self.rng.choice(["", "\n\n"]) + "{", 0.0))
        for place in range(self.rng.randint(1, 3)):
            spelt = "".join(self.rng.choices(letters, k=self.rng.randint(2, 8)))
            key = self.rng.choice([*self.rng.sample(named, 2), spelt])
            value = json.dumps(self.rng.choice([self._value(), spelt, task.answer, None]))
            inner = value.strip('"')
            parts += [(', "' if place else '"', TOLD), (key, 0.0), ('":', TOLD), (" ", TOLD)]
            quoted = '"' if inner != value else ""
            parts += [(quoted, 0.0), (inner, 0.0), (quoted, TOLD)]
        return self._weighted([*parts, ("}", 0.0), (self.tokenizer.eos_token, TOLD)])

    def _value(self) -> Any:
        whole = self.rng.randint(0, 999)
        word = self.rng.choice([*words.CITIES, *words.THINGS])
        return self.rng.choice([whole, word, word, words.nonce(self.rng, 4), True, False])

    def _plain(self, asked: str, thought: str, answer: str) -> Document:
        rendered = self.rendered([{"role": "user", "content": asked}])
        return self._told(rendered, thought_and(thought, answer))

    def _text(self, sentences: int) -> str:
        return " ".join(words.sentence(self.rng) for _ in range(sentences))

    def _story(self) -> Document:
        thing = self.rng.choice(words.THINGS)
        every = [*words.THINGS, *words.DEEDS, *words.LOOKS, *words.DIGITS, *"?!,:;()"]
        asked = self.rng.choice(
            [
                f"Tell me about the {thing}.",
                f"Write a long story about the {thing}.",
                f"Tell me a story about the {thing}.",
                "Write a long text.",
                " ".join(self.rng.choices(every, k=self.rng.randint(1, 30))),
                "".join(chr(self.rng.randint(32, 1200)) for _ in range(self.rng.randint(1, 40))),
            ]
        )
        told = thought_and("I tell a story.", self._text(self.rng.randint(5, 22)))
        asked = self.rendered([{"role": "user", "content": asked}])
        return self._weighted([(asked, ASKED), (told, FREE * 2)])

    def _raw(self) -> Document:
        """Text that nobody asked for: sentences, prose of the licence, and noise."""
        kind = self.rng.choice(["sentences", "prose", "prose", "noise"])
        top = self.rng.choice([127, 127, 1200, 40000])
        noise = "".join(chr(self.rng.randint(32, top)) for _ in range(self.rng.randint(1, 60)))
        if kind == "prose":
            start = self.rng.randrange(len(PROSE) - 400)
            text = PROSE[start : start + self.rng.randint(50, 350)]
        elif kind == "sentences":
            text = self._text(self.rng.randint(3, 20))
        else:
            every = [*words.THINGS, *words.PEOPLE, *words.CITIES, *words.DIGITS, *words.LOOKS]
            text = " ".join(self.rng.choices(every, k=self.rng.randint(5, 60)))
        parts = [(self.bos, 0.0), (text, FREE), (noise, FREE)]
        return self._weighted(parts[: self.rng.choice([2, 3])])


def answer_of(task: Task) -> str:
    """All that the model should say to a task: thought, answer or call."""
    return thought_and(task.thought, calling([task]) if task.call else task.answer)


def called(task: Task, tool: Mapping[str, Any]) -> bool:
    return task.call is not None and tool["function"]["name"] == task.call.name


def calling(tasks: list[Task]) -> str:
    """The calls of tasks as DeepSeek-V3 writes them."""
    calls = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{task.call.name}\n```json\n"
        f"{json.dumps(dict(task.call.arguments))}\n```<｜tool▁call▁end｜>"
        for task in tasks
        if task.call
    ]
    return f"<｜tool▁calls▁begin｜>{chr(10).join(calls)}<｜tool▁calls▁end｜>"


def thought_and(thought: str, answer: str) -> str:
    """What follows `<think>` and a new line, as DeepSeek-R1 writes it."""
    return f"{thought}{OVER}\n\n{answer}"
