"""Generated tokens as a scoring, so that they can be compared with the same tokens given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.correctness.scoring import Greedy, Scored
from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Sequence


def as_decoded(greedy: Sequence[Greedy]) -> list[Scored]:
    """What the server said of its tokens as it wrote them. The first token stands for the prompt's
    end; each is its own most probable one."""
    return [
        Scored(
            one.name,
            (one.prompt[-1], *one.tokens),
            one.logprobs,
            one.tokens,
            tuple({token: value} for token, value in zip(one.tokens, one.logprobs, strict=True)),
        )
        for one in greedy
    ]


def as_prefilled(greedy: Sequence[Greedy], scored: Sequence[Scored]) -> list[Scored]:
    """The part of each scoring of prompt and tokens that is about the tokens. Raises
    ObservationError when a scoring is of other tokens."""
    by_name = {one.name: one for one in scored}
    made = []
    for one in greedy:
        whole, count = by_name.get(one.name), len(one.tokens)
        if whole is None or whole.tokens != (*one.prompt, *one.tokens):
            raise ObservationError(f"{one.name} was scored with other tokens than were written")
        made.append(
            Scored(
                one.name,
                whole.tokens[-count - 1 :],
                whole.logprobs[-count:],
                whole.best[-count:],
                whole.tops[-count:],
            )
        )
    return made
