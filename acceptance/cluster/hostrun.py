"""What runs on each host of a fleet: one command in an agent's care, and the folder it leaves.

`python -m acceptance.cluster.hostrun WORDS…`, started in the agent's folder, becomes that command
in the suite's own folder; its last word is completed by the path where its results are to go.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.cluster.agent import Agent
from acceptance.cluster.carry import Mark, Piece, piece

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
RESULTS = "run"


class HostAgent(Agent):
    """Besides what an agent does, hands over the folder that its part has written."""

    def hand_over(self, mark: Mark) -> Piece:
        """What follows the mark; nothing where nothing was written."""
        self._hear()
        assert self.folder is not None
        return piece(self.folder / RESULTS, mark)


def become(words: Sequence[str]) -> list[str]:
    """The whole command, for the folder that this process is in."""
    *first, last = words
    return [*first, f"{last}{Path.cwd() / RESULTS}"]


def main() -> None:
    argv = become(sys.argv[1:])
    os.chdir(ROOT)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
