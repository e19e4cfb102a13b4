"""The fake model's tokens: DeepSeek's marks, then one for each character."""

from __future__ import annotations

import re
from typing import Any

MARKS = (
    *(
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜▁pad▁｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
    ),
    *("<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    *("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
)
BOS, EOS, _PAD, USER, ASSISTANT, THINK, THINK_END, CALLS, CALLS_END, CALL, CALL_END, SEP = range(12)
FIRST = 16  # of the characters
VOCABULARY = FIRST + 0x110000

_MARK = re.compile("|".join(map(re.escape, MARKS)))


def encode(text: str) -> list[int]:
    """Marks become their own token, as in a real tokenizer."""
    tokens, end = [], 0
    for match in _MARK.finditer(text):
        tokens += [FIRST + ord(character) for character in text[end : match.start()]]
        tokens.append(MARKS.index(match[0]))
        end = match.end()
    return tokens + [FIRST + ord(character) for character in text[end:]]


def shown(tokens: list[int]) -> str:
    """Without marks, as an answer's text."""
    return "".join(chr(token - FIRST) for token in tokens if token >= FIRST)


def spelled(tokens: list[int]) -> str:
    """With marks, as /detokenize gives it."""
    return "".join(chr(t - FIRST) if t >= FIRST else MARKS[t] for t in tokens if t < VOCABULARY)


def render(body: dict[str, Any], *, thinks: bool, breaks: set[str]) -> list[int]:
    """DeepSeek's chat template."""
    messages, parts = body["messages"], [MARKS[BOS]]
    if "hides-tools" not in breaks:
        parts += [f"{tool['function']['name']}\n" for tool in body.get("tools") or ()]
    for number, message in enumerate(messages):
        content, role = message.get("content") or "", message["role"]
        last = number == len(messages) - 1
        if role == "user":
            parts.append(MARKS[USER] + content)
        elif role == "assistant":
            if "feeds-thoughts-back" in breaks:
                content = (message.get("reasoning") or "") + content
            for call in message.get("tool_calls") or ():
                content += f"{MARKS[CALL]}{call['function']['name']}{MARKS[CALL_END]}"
            goes_on = last and body.get("continue_final_message")
            end = "" if goes_on and "closes-what-goes-on" not in breaks else MARKS[EOS]
            parts.append(MARKS[ASSISTANT] + content + end)
        elif not (role == "tool" and "drops-results" in breaks) and not (
            role == "system" and "drops-system" in breaks
        ):
            parts.append(content)
    if body.get("add_generation_prompt", True):
        parts.append(MARKS[ASSISTANT] + ("<think>\n" if thinks else ""))
    return encode("".join(parts))
