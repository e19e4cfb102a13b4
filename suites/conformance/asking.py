"""Requests that conformance asks once: those that do not disturb each other go out together, and
every test that wants an answer reads the same one.

    TOGETHER = Requests()
    SHORT = TOGETHER.whole("chat", max_tokens=3)

    def test_...(answers):
        answers.whole(SHORT)   # the first time, everything of TOGETHER is sent

What compares two answers token by token is sent one after the other (alone=True), and to one
address of several: what shares a batch changes the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from acceptance.conformance.answers import read_answer
from acceptance.conformance.bodies import PATHS, body
from acceptance.conformance.sse import Stream, read_stream
from acceptance.correctness.asking import each
from reports.exchanges import latest, recall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acceptance.serving.server import Server
    from reports.exchanges import Remembered

WIDTH = 16  # requests at once
ROOM = 4096  # tokens; R1 thinks some hundred about a small task
_Answer = TypeVar("_Answer")


@dataclass(eq=False)
class Request:
    """One request, made for the server when it is sent."""

    group: Requests
    path: str
    make: Callable[[Answers], dict[str, Any]]
    stream: bool = False


@dataclass(eq=False)
class Requests:
    """Those that are sent together, or, if alone, one by one."""

    alone: bool = False
    members: list[Request] = field(default_factory=list)

    def whole(self, kind: str, **changes: Any) -> Request:
        """Of kind "chat" or "completion", with these changes to the usual body; one that is a
        function is given the Answers."""

        def made(answers: Answers) -> dict[str, Any]:
            known = {k: v(answers) if callable(v) else v for k, v in changes.items()}
            return body(kind, answers.model, **known)

        return self.to(PATHS[kind], made)

    def stream(self, kind: str, **changes: Any) -> Request:
        """The same, streamed."""
        made = self.whole(kind, **changes)
        made.stream = True
        return made

    def to(self, path: str, make: Callable[[Answers], dict[str, Any]]) -> Request:
        """A POST to any path."""
        self.members.append(Request(self, path, make))
        return self.members[-1]


class Answers:
    """What the server said to each request. One for each server. model: the served name.
    room: tokens that an answer which ends by itself may take. at_one: a client that stays at one
    address, where the server has several."""

    def __init__(
        self,
        client: httpx.Client,
        server: Server,
        max_model_len: int,
        at_one: httpx.Client | None = None,
    ) -> None:
        self._at_one = at_one or client
        self.client, self.server, self.model = client, server, server.model
        self.room = min(ROOM, max_model_len // 2)
        self._known: dict[Request, httpx.Response | Stream | Exception] = {}
        self._asked: dict[Request, Remembered | None] = {}
        self._once: dict[Callable[[Answers], Any], Any] = {}

    def whole(self, request: Request) -> dict[str, Any]:
        """The body of a 200. Raises AssertionError of anything else, httpx.HTTPError of none."""
        return read_answer(self.response(request))

    def response(self, request: Request) -> httpx.Response:
        """The answer as it came. Raises httpx.HTTPError when none did."""
        found = self._of(request)
        assert isinstance(found, httpx.Response), "asked for as a stream"
        return found

    def streamed(self, request: Request) -> Stream:
        """The answer of one that was asked for as a stream. Raises as response."""
        found = self._of(request)
        assert isinstance(found, Stream), "not asked for as a stream"
        return found

    def now(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[httpx.Response]:
        """Requests that are not kept, given as path and body, all at once. Raises as response."""
        return each(lambda asked: self.client.post(asked[0], json=asked[1]), requests, WIDTH)

    def once(self, make: Callable[[Answers], _Answer]) -> _Answer:
        """What make(self) gives, made the first time: answers that need another answer first."""
        if make not in self._once:
            self._once[make] = make(self)
        found: _Answer = self._once[make]
        return found

    def _of(self, request: Request) -> httpx.Response | Stream:
        if request not in self._known:
            self._send(request.group)
        recall(self._asked.get(request))
        found = self._known[request]
        if isinstance(found, Exception):
            raise found
        return found

    def _send(self, group: Requests) -> None:
        wanted = [request for request in group.members if request not in self._known]
        answers = each(self._ask, wanted, 1 if group.alone else WIDTH)
        self._known.update(zip(wanted, answers, strict=True))

    def _ask(self, request: Request) -> httpx.Response | Stream | Exception:
        """What goes wrong is the failure of the test that wants the answer."""
        asked = request.make(self)
        client = self._at_one if request.group.alone else self.client
        latest()  # whatever this thread asked before
        try:
            if request.stream:
                return read_stream(client, request.path, asked)
            return client.post(request.path, json=asked)
        except httpx.HTTPError as error:
            return error
        finally:
            self._asked[request] = latest()
