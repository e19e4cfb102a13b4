from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptance.serving.line import LogLine, clean, parse
from acceptance.serving.log import LINE_LIMIT, LogTail, read_lines
from acceptance.serving.window import read_window

LOGS = Path(__file__).parents[1] / "data" / "logs"


@pytest.mark.parametrize(
    ("text", "process", "pid", "level", "source", "rest"),
    [
        (
            "(Worker_TP1_EP1 pid=3142) ERROR 11-24 05:42:28 [multiproc_executor.py:953] KeyError",
            "Worker_TP1_EP1",
            3142,
            "ERROR",
            "multiproc_executor.py:953",
            "KeyError",
        ),
        ("(VllmWorker rank=3 pid=5) INFO 04-25 10:24:22 [x.py:1] y", "VllmWorker", 5, "INFO",
         "x.py:1", "y"),
        ("(RayWorkerWrapper pid=2, ip=192.0.2.5) ERROR 03-27 10:29:13 [w.py:6] z",
         "RayWorkerWrapper", 2, "ERROR", "w.py:6", "z"),
        ("(EngineCore_DP0 pid=387) Process EngineCore_DP0:", "EngineCore_DP0", 387, "", "",
         "Process EngineCore_DP0:"),
        ("(EngineCore_DP0 pid=387) 2026-03-08 16:44:29,692 - INFO - autotuner.py:262 - starts",
         "EngineCore_DP0", 387, "INFO", "autotuner.py:262", "starts"),
        ("INFO 03-08 16:43:40 [__init__.py:216] platform cuda", "", None, "INFO",
         "__init__.py:216", "platform cuda"),
        ("INFO:     Application startup complete.", "", None, "INFO", "uvicorn",
         "Application startup complete."),
        ("[rank3]:[E1124 05:56:02.985 ProcessGroupNCCL.cpp:683] [Rank 3] Watchdog", "rank3", None,
         "ERROR", "ProcessGroupNCCL.cpp:683", "[Rank 3] Watchdog"),
        ("[W1124 05:56:45.380783953 utils.cpp:68] Warning: NUMA", "", None, "WARNING",
         "utils.cpp:68", "Warning: NUMA"),
        ("[rank0]: Traceback (most recent call last):", "rank0", None, "", "",
         "Traceback (most recent call last):"),
        ("Traceback (most recent call last):", "", None, "", "",
         "Traceback (most recent call last):"),
        ("(not a process) INFO", "", None, "", "", "(not a process) INFO"),
        ("", "", None, "", "", ""),
    ],
)  # fmt: skip
def test_a_line_is_taken_apart(
    text: str, process: str, pid: int | None, level: str, source: str, rest: str
) -> None:
    (line,) = parse(text)
    assert (line.process, line.pid, line.level, line.source) == (process, pid, level, source)
    assert line.text == rest


def test_records_glued_together_are_separated() -> None:
    lines = parse(
        "See https://example.org/refleaks.html(MainProcess pid=1) INFO 11-24 05:56:53 [u.py:6] a"
        "(Worker pid=2) INFO 11-24 05:56:53 [u.py:7] b",
        continues=True,
    )
    assert [(line.process, line.text) for line in lines] == [
        ("", "See https://example.org/refleaks.html"),
        ("MainProcess", "a"),
        ("Worker", "b"),
    ]
    assert [line.continues for line in lines] == [False, False, True]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"tab\tkept", "tab\tkept"),
        (b"\x1b[1;36m(APIServer pid=1)\x1b[0;0m INFO", "(APIServer pid=1) INFO"),
        (b"\x1b]0;title\x07x", "x"),
        (b"nul\x00 bell\x07 del\x7f", "nul\\x00 bell\\x07 del\\x7f"),
        (b"\xff\xfe", "��"),
        ("line\u2028sep \u202ereversed".encode(), "line\\u2028sep \\u202ereversed"),
        ("model ▄█ 专家".encode(), "model ▄█ 专家"),
    ],
)
def test_text_is_made_printable(raw: bytes, text: str) -> None:
    assert clean(raw) == text


def test_a_growing_log_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    tail = LogTail(log)
    assert list(tail.poll()) == []
    log.write_bytes(b"one\ntw")
    assert [line.text for line in tail.poll()] == ["one"]
    assert [line.text for line in tail.rest()] == ["tw"]
    with log.open("ab") as file:
        file.write(b"o\r\n\nfour \xe4\xb8")
    lines = list(tail.poll())
    assert [(line.text, line.number, line.offset) for line in lines] == [("two", 2, 4)]
    assert lines[0].continues
    with log.open("ab") as file:
        file.write(b"\x93\n")
    assert [(line.text, line.number) for line in tail.poll()] == [("four 专", 4)]
    assert tail.offset == log.stat().st_size


def test_progress_bars_show_each_update_once(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"\rCapturing:   0%| | 0/51\rCapturing:  47%| | 24/51\rCapturing:  60")
    tail = LogTail(log)
    assert [line.text[-5:] for line in tail.poll()] == [" 0/51", "24/51"]
    assert [line.text for line in tail.rest()] == ["Capturing:  60"]
    with log.open("ab") as file:
        file.write(b"%| | 30/51\r")
    assert list(tail.poll()) == []  # the CR may be half of a CR LF
    with log.open("ab") as file:
        file.write(b"\ndone\n")
    lines = list(tail.poll())
    assert [(line.text, line.number) for line in lines] == [
        ("Capturing:  60%| | 30/51", 1),
        ("done", 2),
    ]


def test_a_replaced_log_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"a long first life\nhalf")
    tail = LogTail(log)
    list(tail.poll())
    log.write_bytes(b"new\n")
    assert [(line.text, line.number, line.offset) for line in tail.poll()] == [("new", 1, 0)]
    assert tail.restarts == 1


def test_a_poll_that_stops_early_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"".join(b"%d\n" % n for n in range(1000)))
    tail = LogTail(log)
    seen = []
    for _ in range(2000):
        seen += [line.text for line in islice(tail.poll(limit=64), 3)]
    assert seen == [str(n) for n in range(1000)]


def test_an_endless_line_is_cut_and_memory_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        for _ in range(64):
            file.write(b"x" * 100_000)
        file.write(b"\nnext\n")
        file.write(b"y" * 300_000 + b"\rafter the bar\nlast")
    read: list[int] = []
    more = LogTail._more

    def counted(self: LogTail, size: int) -> bytes:
        chunk = more(self, size)
        read.append(len(chunk))
        assert len(self._partial) <= LINE_LIMIT
        return chunk

    monkeypatch.setattr(LogTail, "_more", counted)
    tail = LogTail(log)
    lines = [*tail.poll(), *tail.rest()]
    assert [line.number for line in lines] == [1, 2, 3, 3, 4]
    assert [line.text[:5] for line in lines] == ["xxxxx", "next", "yyyyy", "after", "last"]
    assert all(len(line.text) < LINE_LIMIT + 20 for line in lines)
    assert sum(read) == log.stat().st_size  # every byte once
    assert lines[1].offset == 6_400_001
    assert lines[3].offset == 6_400_006 + 300_001


@given(
    parts=st.lists(st.binary(max_size=60) | st.sampled_from([b"\r", b"\n", b"\r\n"]), max_size=30),
    data=st.data(),
)
@settings(deadline=None, max_examples=150)
def test_lines_do_not_depend_on_how_they_arrive(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], data: st.DataObject
) -> None:
    log = tmp_path_factory.mktemp("fuzz") / "server.log"
    whole = b"".join(parts)
    log.write_bytes(whole)
    expected = list(read_lines(log))
    log.write_bytes(b"")
    tail = LogTail(log)
    got: list[LogLine] = []
    position = 0
    while position < len(whole):
        step = data.draw(st.integers(1, 40))
        with log.open("ab") as file:
            file.write(whole[position : position + step])
        position += step
        got += tail.poll(limit=data.draw(st.sampled_from([None, 7])))
    got += tail.poll()
    assert [*got, *tail.rest()] == expected
    assert all("\n" not in line.text and "\x1b" not in line.text for line in expected)


def test_a_range_holds_the_lines_that_begin_in_it(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"aaaa\nbbbb\ncccc\ndddd")
    assert [line.text for line in read_lines(log, 5, 12)] == ["bbbb", "cccc"]
    assert [line.text for line in read_lines(log, 7)] == ["cccc", "dddd"]
    assert [line.text for line in read_lines(log, 15, 16)] == ["dddd"]
    assert list(read_lines(log, 100)) == []
    assert list(read_lines(tmp_path / "none.log")) == []


def test_a_window_counts_records_not_lines(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    failed = (LOGS / "real-worker-keyerror.log").read_bytes()
    jit = (LOGS / "synthetic-gpu-start-0.32.log").read_bytes()
    stalled = (LOGS / "synthetic-nccl-watchdog.log").read_bytes()
    log.write_bytes(failed + jit + stalled)
    first = read_window(log, 0, len(failed))
    assert first.error_count == 3  # two workers and the engine, each a traceback of many lines
    assert [line.split(" ", 1)[0] for line in first.errors] == [
        "Worker_TP1_EP1",
        "Worker_TP0_EP0",
        "EngineCore",
    ]
    assert not first.jit_count
    second = read_window(log, len(failed), len(failed) + len(jit))
    assert (second.error_count, second.jit_count, second.stalls) == (0, 1, 1)
    assert "_fwd_grouped_kernel_stage1" in second.jit[0]
    assert read_window(log, len(failed) + len(jit)).stalls == 3
    assert not second.clean


def test_a_quiet_window_is_clean_and_a_missing_log_is_not(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"INFO:     ok\n(Worker pid=1) WARNING 11-24 05:56:53 [u.py:6] ulimit\n")
    assert read_window(log, 0).clean
    with pytest.raises(FileNotFoundError):
        read_window(tmp_path / "none.log", 0)


def test_many_errors_are_counted_and_a_few_kept(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"(E pid=1) ERROR 11-24 05:56:53 [u.py:6] bad\n" * 500)
    window = read_window(log, 0)
    assert window.error_count == 500
    assert len(window.errors) == 20
