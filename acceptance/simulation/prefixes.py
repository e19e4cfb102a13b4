"""The prefix cache: which blocks of a prompt were computed before."""

from __future__ import annotations

from acceptance.simulation.language import digest


class Prefixes:
    """Whole blocks by the hash of everything before and in them, the oldest given up first.

    block: tokens of a block. tokens: how many fit.
    """

    def __init__(self, block: int, tokens: int) -> None:
        self.block = block
        self._room = max(1, tokens // block)
        self._known: dict[int, None] = {}

    def take(self, prompt: list[int]) -> int:
        """Tokens of the prompt that are there, whole blocks; from now on all of it is. The last
        token is always computed."""
        state, hits, missed = 0, 0, False
        for begin in range(0, len(prompt) - self.block + 1, self.block):
            state = digest(prompt[begin : begin + self.block], state)
            missed = missed or state not in self._known
            hits += 0 if missed else self.block
            self._known.pop(state, None)
            self._known[state] = None
        while len(self._known) > self._room:
            del self._known[next(iter(self._known))]
        return min(hits, max(0, len(prompt) - 1) // self.block * self.block)
