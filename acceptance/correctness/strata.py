"""Positions where defects hide from averages: borders of cache pages and of prefill chunks, the
first tokens, and those far into the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.correctness.scoring import Scored

FIRST = 128
FAR = (8192, 32768)  # tokens: beyond the first, rope scaling and split attention kernels matter
AROUND = 2  # positions on each side of a border


@dataclass(frozen=True)
class Shape:
    """page: tokens of a KV block. chunk: most tokens prefilled at once. length: of a request."""

    page: int
    chunk: int
    length: int


def strata(shape: Shape) -> dict[str, Callable[[Scored, int], bool]]:
    """By name, which positions (text, index of the token, from 1) belong to a stratum."""

    def border(of: int) -> Callable[[Scored, int], bool]:
        def near(_: Scored, place: int) -> bool:
            return place >= of - AROUND and min(place % of, of - place % of) <= AROUND

        return near

    found: dict[str, Callable[[Scored, int], bool]] = {
        "first": lambda _, place: place < FIRST,
        "page-borders": border(shape.page),
    }
    if shape.chunk < shape.length:
        found["chunk-borders"] = border(shape.chunk)
    for far in FAR:
        if far < shape.length:
            found[f"beyond-{far}"] = _beyond(far)
    return found


def _beyond(far: int) -> Callable[[Scored, int], bool]:
    return lambda _, place: place > far


def long_lengths(shape: Shape, room: int = 64) -> list[int]:
    """Lengths of texts, in tokens, that reach every stratum: past the first chunk border and past
    each far mark, as far as a request may be long."""
    most = shape.length - room
    wanted = {shape.chunk + 4 * FIRST, *(far + 4 * FIRST for far in FAR)}
    if shape.chunk >= shape.length:
        wanted.discard(shape.chunk + 4 * FIRST)
    return sorted({min(length, most) for length in wanted if length - 4 * FIRST < most})
