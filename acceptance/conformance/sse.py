"""Server-sent events as they come over the wire, split at any byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable


class SseParser:
    """Feed it bytes as they arrive. events: the data of each finished event.

    Lines end in LF, CR LF or CR (WHATWG, Server-sent events). Comments, such as vLLM's keep-alive,
    and fields other than data are passed over. A line is decoded when it is whole, so that a
    character cut by a packet is no error; one that is no UTF-8 raises UnicodeDecodeError.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self._bytes = bytearray()
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, piece: bytes) -> None:
        for byte in piece:
            after_cr, self._after_cr = self._after_cr, byte == 0x0D
            if byte == 0x0A and after_cr:
                continue
            if byte in (0x0A, 0x0D):
                self._line(bytes(self._bytes).decode())
                self._bytes.clear()
            else:
                self._bytes.append(byte)

    @property
    def unfinished(self) -> str:
        """What is left of an event that no blank line ended."""
        return "\n".join([*self._data, self._bytes.decode(errors="replace")]).strip("\n")

    def _line(self, line: str) -> None:
        if not line:
            if self._data:
                self.events.append("\n".join(self._data))
            self._data = []
            return
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))


@dataclass(frozen=True)
class Stream:
    """A streamed answer as it was received. body: the text of one that is no stream. broken: why
    the bytes ended before their time, or could not be read. raw: every byte of a stream."""

    status: int
    content_type: str = ""
    events: tuple[str, ...] = ()
    unfinished: str = ""
    broken: str = ""
    body: str = ""
    sent: dict[str, Any] = field(default_factory=dict)
    raw: bytes = field(default=b"", repr=False)


def at_every_byte(stream: Stream) -> Stream:
    """The same bytes, read one at a time: what the worst of networks may do."""
    pieces = (stream.raw[start : start + 1] for start in range(len(stream.raw)))
    return collect(pieces, stream.status, stream.content_type, stream.sent)


def read_stream(client: httpx.Client, path: str, body: dict[str, Any]) -> Stream:
    """POSTs with stream=true and reads to the end. Raises nothing that the server causes once it
    began to answer."""
    sent = {**body, "stream": True}
    with client.stream("POST", path, json=sent) as answer:
        kind = answer.headers.get("content-type", "")
        if answer.status_code != 200:
            text = answer.read().decode(errors="replace")
            return Stream(answer.status_code, kind, body=text, sent=sent)
        return collect(answer.iter_bytes(), answer.status_code, kind, sent)


def collect(
    pieces: Iterable[bytes], status: int, content_type: str, sent: dict[str, Any] | None = None
) -> Stream:
    """Pieces of bytes to a Stream."""
    parser, broken, raw = SseParser(), "", bytearray()
    try:
        for piece in pieces:
            raw += piece
            parser.feed(piece)
    except (httpx.HTTPError, UnicodeDecodeError) as error:
        broken = repr(error)
    return Stream(
        status,
        content_type,
        tuple(parser.events),
        parser.unfinished,
        broken,
        sent=sent or {},
        raw=bytes(raw),
    )
