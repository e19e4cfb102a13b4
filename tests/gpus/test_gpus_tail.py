"""A telemetry file that is read as it grows tells what one that is read whole tells."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acceptance.errors import ObservationError
from acceptance.gpus.tail import TelemetryTail, read_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from acceptance.gpus.telemetry import Telemetry


def line(t: float, kind: str, **told: Any) -> bytes:
    """As the sampler writes it, but for letters beyond ASCII, which other programs write so."""
    return json.dumps({"t": t, "kind": kind, **told}, ensure_ascii=False).encode() + b"\n"


BEGIN = line(1.0, "begin", gpus={"GPU-1": {"total": 9, "reserved": 1}}, registered={"GPU-1": []})
MEMORY = [line(2.0 + n, "memory", free=[5 - n], samples=3) for n in range(3)]
USER = [4711, 4, "ours", "pid 4711 (модель 𝄞 of é)"]
REST = line(3.0, "rest", gpu="GPU-1", clock_reasons=4, rows=[0, 0, False, False], processes=[USER])
LINES = (
    BEGIN,
    *MEMORY,
    REST,
    line(3.5, "event", gpu="GPU-1", event="xid", code=79),
    line(3.5, "missed", gpu="GPU-1", what="ecc", unobservable="nein, é", error="x"),
    line(4.0, "end", ticks=3, cpu_s=0.1),
    b"no JSON\n",
    MEMORY[0][:20],  # torn: the next line is glued to it
    REST[: REST.index("𝄞".encode()) + 2],
    b'{"kind": "memory", "free": [1]}\n',
    b"\n",
)


def told(read: Callable[[], Telemetry]) -> Telemetry | str:
    try:
        return read()
    except ObservationError as error:
        return str(error)


@settings(
    derandomize=True,
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lines=st.lists(st.sampled_from(LINES), max_size=12),
    cuts=st.lists(st.integers(0, 1200), max_size=6),
)
def test_however_the_file_was_cut_into_pieces(
    tmp_path: Path, lines: list[bytes], cuts: list[int]
) -> None:
    """Inside of a line and of a character too. One reader reads at every piece, another seldom."""
    whole, path = BEGIN + b"".join(lines), tmp_path / "t.jsonl"
    path.write_bytes(b"")
    often, seldom = TelemetryTail(path), TelemetryTail(path)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    for number, (start, end) in enumerate(pairwise(edges)):
        with path.open("ab") as file:
            file.write(whole[start:end])
        at_once = told(lambda: read_telemetry(path))
        assert told(often.read) == at_once
        if number % 3 == 2:
            assert told(seldom.read) == at_once
    assert told(seldom.read) == told(lambda: read_telemetry(path))


def replaced(path: Path, content: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(content)
    other.rename(path)


def written_over(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.truncate()
        file.write(content)


@pytest.mark.parametrize("how", [replaced, written_over])
@pytest.mark.parametrize(
    "content",
    [b"", BEGIN, BEGIN + MEMORY[2] + MEMORY[1] + REST, BEGIN + b"".join(MEMORY)],
    ids=["emptied", "shorter", "as long or longer", "the same"],
)
def test_a_file_that_is_another_one_is_read_from_its_beginning(
    tmp_path: Path, how: Callable[[Path, bytes], None], content: bytes
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(BEGIN + b"".join(MEMORY))
    tail = TelemetryTail(path)
    assert len(tail.read().memory) == 3
    how(path, content)
    assert tail.read() == read_telemetry(path)


def test_what_was_read_stays_as_it_was_and_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(BEGIN + REST)
    tail = TelemetryTail(path)
    first = tail.read()
    with path.open("ab") as file:
        file.write(MEMORY[0] + REST)
    second = tail.read()
    assert (first.memory, len(first.rest["GPU-1"])) == ([], 1)
    one, other = second.rest["GPU-1"]
    assert one is first.rest["GPU-1"][0]
    assert one.processes is other.processes, "what does not change is kept once"


def test_a_file_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TelemetryTail(tmp_path / "t.jsonl").read()
