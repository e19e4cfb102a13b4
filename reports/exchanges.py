"""What was asked of a server and what it answered, kept while a test runs, for its record.

Only the first part of each body is kept, copied as it passes by: a stream stays a stream. Keys are
told apart, never kept.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections import deque
from typing import TYPE_CHECKING, Literal

import httpx
import pytest

from reports.schema import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEPT = 8  # exchanges of one test
MOST = 4000  # characters of a body
_OVERLAP = 1000  # bytes beyond, so that a secret on the edge is still recognised
_PLAIN = "application/json"
_NAME = "acceptance.exchange"  # of a response's extensions
Remembered = tuple["Journal", "_Seen"]


_HERE = threading.local()


class Journal:
    """The last exchanges. Clients may be used by several threads."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._lock = threading.Lock()
        self._kept: deque[_Seen] = deque(maxlen=KEPT)
        self._used: deque[_Seen] = deque(maxlen=KEPT)

    def clear(self) -> None:
        """Forgets what an earlier test asked."""
        with self._lock:
            self._kept.clear()
            self._used.clear()

    def watch(
        self, client: httpx.Client, key: str = "", *, addressed: bool = False
    ) -> httpx.Client:
        """From now on the client's exchanges are kept. key: the right one of its server. addressed:
        with the address that answered, for a server that has several."""
        hooks = client.event_hooks
        hooks["response"] = [
            *hooks["response"],
            lambda response: self._see(response, key, addressed),
        ]
        client.event_hooks = hooks
        return client

    def taken(self) -> tuple[Exchange, ...]:
        """What the test asked, oldest first, without secrets; where it recalled answers, those
        alone, for what it asked besides was asked for others too."""
        with self._lock:
            seen = list(self._used or self._kept)
        return tuple(one.told(self._redact) for one in seen)

    def use(self, seen: _Seen) -> None:
        """Counts an earlier exchange to the test that runs now."""
        with self._lock:
            if seen not in self._used:
                self._used.append(seen)

    def _see(self, response: httpx.Response, key: str, addressed: bool) -> None:
        seen = _Seen(response, key, addressed)
        _HERE.last = self, seen
        response.extensions[_NAME] = self, seen
        stream = response.stream
        if response.is_stream_consumed:  # it never was on a wire
            seen.add(response.content)
        elif isinstance(stream, httpx.SyncByteStream):
            response.stream = _Copied(stream, seen)
        with self._lock:
            self._kept.append(seen)


class _Seen:
    """One exchange as it happens."""

    def __init__(self, response: httpx.Response, key: str, addressed: bool) -> None:
        request = response.request
        self.address = request.url.netloc.decode("ascii") if addressed else ""
        given = request.headers.get("authorization", "")
        self.auth: Literal["key", "none", "other"] = "other" if given else "none"
        if given == f"Bearer {key}":
            self.auth = "key"
        self.method, self.path = request.method, request.url.raw_path.decode("ascii", "replace")
        self.content_type = request.headers.get("content-type", "")
        self.status = response.status_code
        self.encoded = bool(response.headers.get("content-encoding", ""))
        self.sent = _body_of(request)
        self.received = bytearray()
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Takes a copy of the start of the answer."""
        self.size += len(chunk)
        if len(self.received) < MOST + _OVERLAP:
            self.received += chunk[: MOST + _OVERLAP - len(self.received)]

    def told(self, redact: Callable[[str], str]) -> Exchange:
        """The exchange without secrets, cut to what is kept."""
        sent = redact(self.sent.decode("utf-8", "backslashreplace"))
        whole = len(sent) <= MOST and _is_text(self.sent)
        received = "" if self.encoded else redact(self.received.decode("utf-8", "replace"))
        left = max(0, self.size - MOST)
        return Exchange(
            method=self.method,
            path=redact(self.path)[:MOST],
            status=self.status,
            address=self.address,
            auth=self.auth,
            content_type=self.content_type,
            request=sent[:MOST],
            whole=whole,
            response=received[:MOST] + (f" … ({left} more bytes)" if left else ""),
        )


class _Copied(httpx.SyncByteStream):
    """The same stream; what passes is told to the exchange."""

    def __init__(self, stream: httpx.SyncByteStream, seen: _Seen) -> None:
        self._stream, self._seen = stream, seen

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._seen.add(chunk)
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _body_of(request: httpx.Request) -> bytes:
    try:
        return request.content
    except httpx.RequestNotRead:
        return b""


def _is_text(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in body


JOURNAL = pytest.StashKey[Journal]()


def journal_of(config: pytest.Config) -> Journal | None:
    """The journal of this process; None outside a run."""
    return config.stash.get(JOURNAL, None)


def taken(item: pytest.Item) -> tuple[Exchange, ...]:
    """What this test has asked so far."""
    journal = journal_of(item.config)
    return journal.taken() if journal is not None else ()


def latest() -> Remembered | None:
    """The last exchange of this thread, once, for tests that will use its answer later."""
    found: Remembered | None = getattr(_HERE, "last", None)
    _HERE.last = None
    return found


def recall(asked: httpx.Response | Remembered | None) -> None:
    """An answer that was asked for earlier, and together with others, is used by this test."""
    if isinstance(asked, httpx.Response):
        asked = asked.extensions.get(_NAME)
    if asked is not None:
        journal, seen = asked
        journal.use(seen)


def curl(exchange: Exchange) -> str:
    """A command that asks the same again, with base URL and key from the environment; empty where
    the body was longer than what is kept, or no text."""
    if not exchange.whole:
        return ""
    words = ["curl", "-sS"]
    if exchange.method != ("POST" if exchange.request else "GET"):
        words += ["-X", exchange.method]
    path = re.sub(r'([\\"`$])', r"\\\1", exchange.path)
    command = " ".join(words) + f' "$BASE_URL{path}"'
    if exchange.auth == "key":
        command += ' -H "Authorization: Bearer $API_KEY"'
    elif exchange.auth == "other":
        command += " -H 'Authorization: Bearer not-the-key'"
    if exchange.request:
        command += f" -H {shlex.quote(f'Content-Type: {exchange.content_type or _PLAIN}')}"
        command += f" --data-raw {shlex.quote(exchange.request)}"
    return command
