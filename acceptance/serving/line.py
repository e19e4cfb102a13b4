"""One line of a server's log, taken apart.

vLLM 0.32 heads every record `(Worker_TP1_EP1 pid=3142) ERROR 11-24 05:42:28 [file.py:953] text` and
leaves raw output (tracebacks, progress bars) bare; older versions put `(name pid=N)` before raw
output too. A record of many lines repeats the head and ends each line but the last in CR LF.
Other writers are uvicorn (`INFO:     text`), glog (`[rank0]:[E1124 ...]`) and Python's logging.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WHO = (
    r"\((?P<process>[A-Za-z_][\w.\-]{0,63}) (?:rank=\d{1,6} )?pid=(?P<pid>\d{1,10})"
    r"(?:, [^()]{0,80})?\) ?"
)
_RECORD = (
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL) "
    r"(?P<time>\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{1,6})?) \[(?P<source>[^\]\s]{1,200}:\d{1,7})\] ?"
)
_PLAIN_WHO = re.compile(_WHO)
_PLAIN_RECORD = re.compile(_RECORD)
_HEAD = re.compile(_WHO + _RECORD)
_LOGGING = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?) - (?P<level>[A-Z]{4,8}) - "
    r"(?P<source>\S{1,200}:\d{1,7}) - "
)
_UVICORN = re.compile(r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL): +")
_RANK = re.compile(r"\[(?P<process>rank\d{1,6})\]: ?")
_GLOG = re.compile(
    r"\[?(?P<level>[IWEF])(?P<time>\d{3,4} [\d:.]{8,20}) +(?P<source>[^\]]{1,200})\] ?"
)
_GLOG_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}

_RECORD_STARTS = ("INFO", "WARNING", "ERROR", "DEBUG", "CRITICAL", "FATAL", "20")

_ANSI = re.compile(
    r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|[@-Z\\^_])"
)
# Everything that moves the cursor, ends a line for str.splitlines, or turns the reading direction.
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (
        *(code for code in range(0x20) if code != 0x09),
        *range(0x7F, 0xA0),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
        0xFEFF,
    )
}


@dataclass(frozen=True, slots=True)
class LogLine:
    """process: "APIServer", "EngineCore_DP0", "Worker_TP0_EP0", "rank0", or "" for raw output.
    level: "INFO" and so on, "" for raw output. time: as written ("11-24 05:42:28"), no year.
    source: "core.py:402", "uvicorn", or "". number: physical line, from 1. offset: bytes from the
    start of the file. continues: the record goes on in this process's next line."""

    process: str = ""
    pid: int | None = None
    level: str = ""
    time: str = ""
    source: str = ""
    text: str = ""
    number: int = 0
    offset: int = 0
    continues: bool = False

    def __str__(self) -> str:
        head = " ".join(part for part in (self.process, self.level, self.time) if part)
        return f"{head} {self.text}" if head else self.text


def clean(raw: bytes) -> str:
    """Bytes of one line as printable text: invalid UTF-8 replaced, colours dropped, other control
    characters escaped as \\xNN, tabs kept."""
    text = raw.decode("utf-8", errors="replace")
    if text.isprintable():
        return text
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return text.translate(_CONTROLS)


def parse(text: str, number: int = 0, offset: int = 0, *, continues: bool = False) -> list[LogLine]:
    """The records in one clean line: one, or more where processes wrote over each other's ends."""
    first = 0
    head = _HEAD.match(text) if text.startswith("(") else None
    if head:
        first = 1
    if text.find(" pid=", head.end() if head else 0) < 0:
        return [_one(text, number, offset, continues)]
    # A record may be glued to what another process had not yet ended with a newline.
    starts = [0, *(match.start() for match in _HEAD.finditer(text, first) if match.start())]
    pieces = [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    last = len(pieces) - 1
    return [
        _one(piece, number, offset, continues and index == last)
        for index, piece in enumerate(pieces)
    ]


def _one(text: str, number: int, offset: int, continues: bool) -> LogLine:
    process, pid = "", None
    if text.startswith("(") and (who := _PLAIN_WHO.match(text)):
        process, pid = who["process"], int(who["pid"])
        text = text[who.end() :]
    elif text.startswith("[rank") and (who := _RANK.match(text)):
        process = who["process"]
        text = text[who.end() :]
    level = time = source = ""
    if text.startswith(_RECORD_STARTS):
        if record := _PLAIN_RECORD.match(text) or _LOGGING.match(text):
            level, time, source = record["level"], record["time"], record["source"]
            text = text[record.end() :]
        elif record := _UVICORN.match(text):
            level, source = record["level"], "uvicorn"
            text = text[record.end() :]
    elif text.startswith(("[E", "[W", "[I", "[F")) and (record := _GLOG.match(text)):
        level, time, source = _GLOG_LEVELS[record["level"]], record["time"], record["source"]
        text = text[record.end() :]
    return LogLine(process, pid, level, time, source, text, number, offset, continues)
