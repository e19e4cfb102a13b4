"""The one family of errors people read at 3 a.m."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class AcceptanceError(Exception):
    """Something that stops part of a run, told so that the reader can act on it.

    happened: what went wrong, one sentence.
    asked: what was being attempted.
    cause: the root-cause line of a server log, where there is one.
    log: the full log's path.
    hint: what to try next.
    """

    def __init__(
        self,
        happened: str,
        *,
        asked: str = "",
        cause: str = "",
        log: Path | None = None,
        hint: str = "",
    ) -> None:
        self.happened = happened
        self.asked = asked
        self.cause = cause
        self.log = log
        self.hint = hint
        super().__init__(happened)

    def __str__(self) -> str:
        lines = [self.happened]
        for label, value in (
            ("asked", self.asked),
            ("cause", self.cause),
            ("log", str(self.log) if self.log else ""),
            ("try", self.hint),
        ):
            if value:
                lines.append(f"  {label}: {value}")
        return "\n".join(lines)


class InputError(AcceptanceError):
    """The user's input is refused before anything is started: a deployment, option or reference."""


class ServerError(AcceptanceError):
    """A server failed to start, died, hung, or is not the server that was asked for."""


class ObservationError(AcceptanceError):
    """A measurement could not be taken. Never a value of zero, never a pass."""
