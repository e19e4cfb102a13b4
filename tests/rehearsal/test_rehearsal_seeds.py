"""The plugin for seeds on CPU: a prompt read in parts changes nothing of what a seed draws."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is in the rehearsal's environment only")
numpy: Any = pytest.importorskip("numpy")

from acceptance.rehearsal.inside.cpu_seeds import (  # noqa: E402 - needs torch
    _putting_back,
    _without_winding,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Runner:
    """vLLM 0.32's in small: request 0 has a seed, 1 has none, 2 has another seed."""

    def __init__(self) -> None:
        generators = {n: torch.Generator().manual_seed(n) for n in (0, 2)}
        self.input_batch = SimpleNamespace(num_reqs=3, generators=generators)
        self.discard_request_mask = SimpleNamespace(np=numpy.zeros(8, dtype=bool))
        self.told = generators  # as the sampler's metadata: the same dict

    def sample(self) -> dict[int, float]:
        return {n: torch.rand(1, generator=one).item() for n, one in sorted(self.told.items())}

    def book(self) -> list[int]:
        for place in self.discard_request_mask.np[:3].nonzero()[0]:
            if (one := self.input_batch.generators.get(int(place))) is not None:
                one.set_offset(one.get_offset() - 4)
        return sorted(self.told)

    def steps(self, unread: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """What is drawn in steps in which these places are in the midst of their prompts."""
        drawn = []
        for places in unread:
            self.discard_request_mask.np[:] = False
            self.discard_request_mask.np[list(places)] = True
            found = self.sample()
            self.book()
            drawn.append({n: value for n, value in found.items() if n not in places})
        return drawn


class Mended(Runner):
    sample = _putting_back(Runner.sample)
    book = _without_winding(Runner.book)


def test_what_is_thrown_away_is_drawn_again() -> None:
    [first, second] = Runner().steps([(), ()])
    told = Mended().steps([(0, 1), (0,), (2,), ()])
    assert [one.get(0) for one in told] == [None, None, first[0], second[0]]
    third = Runner().steps([(), (), ()])[2]
    assert [one.get(2) for one in told] == [first[2], second[2], None, third[2]]


def test_the_batch_keeps_its_generators() -> None:
    """In the dict that the sampler was told of, also when booking fails."""
    runner = Mended()
    runner.steps([(0, 2)])
    assert sorted(runner.told) == [0, 2]
    assert runner.told is runner.input_batch.generators

    class Failing(Runner):
        book = _without_winding(lambda runner: 1 / 0)

    failing = Failing()
    with pytest.raises(ZeroDivisionError):
        failing.steps([(0,)])
    assert sorted(failing.told) == [0, 2]


def test_without_the_plugin_the_engine_ends() -> None:
    """What it is for; should a CPU's generator learn of offsets, it is wanted no more."""
    with pytest.raises(RuntimeError, match="offset"):
        Runner().steps([(0,)])
