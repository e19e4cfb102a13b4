"""Degeneration, needles, crowds' bookkeeping, and lm-eval itself against a server of ours."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.correctness import lmeval
from acceptance.correctness.benchmarks import benchmark
from acceptance.correctness.degenerate import Text, findings, looped_tail, repeated_share
from acceptance.correctness.free import entropy, read_text
from acceptance.correctness.lmeval import (
    NoData,
    data_files,
    evaluate,
    job_of,
    lm_eval_version,
)
from acceptance.correctness.needle import DEPTHS, fitted, lengths
from acceptance.correctness.prompts import Said, mixed_up, tagged, wrong
from acceptance.correctness.questions import write_own_questions
from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from acceptance.serving.server import Server

PROSE = (
    "The harbour lies still before dawn, and the lamps along the pier go out one after another "
    "while gulls return. Later the first boats leave, each with a crew of three, and nobody speaks "
    "until the bar is passed."
)


def text(content: str | None, reasoning: str | None = None, **more: Any) -> Text:
    return Text("t", content, reasoning, more.pop("finish", "stop"), **more)


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (text(PROSE), set()),
        (text("42", "6 times 7."), set()),
        (text(""), {"empty"}),
        (text(None), {"empty"}),
        (text("", "", count=9), {"only-special"}),
        (text(None, "so I think"), {"only-reasoning"}),
        (text("one two three four five six " * 9), {"loop"}),
        (text(PROSE + " no" * 99), {"repetition", "loop"}),
        (text(PROSE, tokens=(0,) * 64), {"collapse"}),
        (text(PROSE, tokens=tuple(range(64)), entropy=0.0), {"collapse"}),
        (text(PROSE, tokens=tuple(range(64)), entropy=0.4), set()),
        (text("short", tokens=(7,) * 8), set()),
    ],
)
def test_what_is_no_language(said: Text, kinds: set[str]) -> None:
    assert set(findings(said)) == kinds


def test_reasoning_that_was_cut_off_is_no_sign() -> None:
    assert findings(text(None, "so I think", finish="length"), expect_content=False) == {}


@given(st.text(min_size=1, max_size=20), st.integers(3, 12))
def test_a_loop_is_seen_whatever_its_piece(piece: str, times: int) -> None:
    assert looped_tail("abcdefg" + piece * times) >= 0.0
    assert looped_tail(("x" + piece.strip() + "yz") * times) > 0.6
    assert 0 <= repeated_share(" ".join(piece)) <= 1


def test_entropy_counts_what_is_not_listed() -> None:
    assert entropy([0.0]) == 0
    assert entropy([-0.7, -0.7]) == pytest.approx(0.729, abs=0.001)
    with pytest.raises(ObservationError, match="cannot be read"):
        read_text({"choices": []}, "t")


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_needle_fills_its_length(depth: float) -> None:
    """Whatever a word costs in tokens."""
    for rate in (1.0, 1.35, 5.5):
        found = fitted(1536, depth, 3, lambda prompt, r=rate: round(len(prompt.split()) * r) + 9)
        assert 0.95 * 1536 <= found.tokens <= 1536
        place = found.task.prompt.index(found.task.answer) / len(found.task.prompt)
        assert place == pytest.approx(depth, abs=0.08)


def test_lengths_by_tier() -> None:
    assert lengths(2048, "full") == [1536]
    assert lengths(65536, "smoke") == [65024]
    assert lengths(65536, "gate") == [4096, 65024]
    assert lengths(163840, "full") == [4096, 32768, 131072, 163328]


def test_nonces_are_told_apart() -> None:
    tasks = tagged(64)
    assert len({task.answer for task in tasks}) == 64
    right = [Said(task.answer, "I think.", "stop", 3) for task in tasks]
    assert mixed_up(tasks, right) == wrong(tasks, right) == []
    crossed = [*right[:2], Said("?", f"They want {tasks[0].answer}.", "stop", 3), *right[3:]]
    (strange,) = mixed_up(tasks, crossed)
    assert strange == f"{tasks[2].answer} was answered with {tasks[0].answer}"
    assert len(wrong(tasks, crossed)) == 1


SERVER: Any = SimpleNamespace(
    model="m",
    base_url="http://server.test",
    deployment=SimpleNamespace(
        budgets=SimpleNamespace(request=15), scale=SimpleNamespace(batch=0.25)
    ),
)


def test_a_benchmarks_files_are_all_there_or_named(tmp_path: Path) -> None:
    gsm8k = benchmark("gsm8k")
    assert data_files(None, gsm8k) == {}
    with pytest.raises(NoData, match=r"gsm8k/train.jsonl is not there"):
        data_files(tmp_path, gsm8k)
    (tmp_path / "gsm8k").mkdir()
    for name in ("train.parquet", "test.jsonl"):
        (tmp_path / "gsm8k" / name).write_text("")
    found = data_files(tmp_path, gsm8k)
    assert [path.rpartition("/")[2] for path in found.values()] == ["train.parquet", "test.jsonl"]
    job = job_of(SERVER, gsm8k, limit=200, longest=65536, data=found)
    assert (job["concurrent"], job["tokens"], job["defaults"]) == (32, 16384, True)
    assert "key" not in json.dumps(job)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """evaluate() with a module of ours in the place of lm-eval."""

    def asking(act: str, timeout: float = 60) -> Any:
        (tmp_path / "fake_lm_eval.py").write_text(
            f"import json, os, pathlib, sys, time\n_, job, out = sys.argv\n{act}\n"
        )
        monkeypatch.setattr(lmeval, "MODULE", "fake_lm_eval")
        monkeypatch.setattr(lmeval, "ROOT", tmp_path)
        job = {"task": "gsm8k", "data": {}}
        return evaluate(job, "the-key", tmp_path / "kept", timeout=timeout)

    return asking


def test_answers_come_back_and_the_key_goes_by_environment(asked: Any, tmp_path: Path) -> None:
    one = {"question": "q", "right": True, "extracted": True, "truncated": False, "text": "4"}
    said = json.dumps({"answers": [one]})
    (answer,) = asked(
        f"assert os.environ['OPENAI_API_KEY'] == 'the-key'\npathlib.Path(out).write_text({said!r})"
    )
    assert answer.right
    assert "the-key" not in (tmp_path / "kept" / "gsm8k-job.json").read_text()


@pytest.mark.parametrize(
    ("act", "error", "told"),
    [
        ("sys.exit('it broke')", ObservationError, "lm-eval failed"),
        ("pass", ObservationError, "lm-eval failed"),
        ('pathlib.Path(out).write_text(\'{"missing": "offline"}\')', NoData, "cannot be had"),
    ],
)
def test_no_answers_are_told_apart(
    asked: Any, act: str, error: type[ObservationError], told: str
) -> None:
    with pytest.raises(error, match=told):
        asked(act)
    with pytest.raises(ObservationError, match="did not end within 0 s"):
        asked("time.sleep(60)", timeout=0.3)


class Answering(BaseHTTPRequestHandler):
    """Answers the rehearsal's tasks: most right, one wrong, one cut off, one without content."""

    protocol_version = "HTTP/1.1"
    answers: dict[str, str]
    seen: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        prompt = body["messages"][-1]["content"]
        place = list(self.answers).index(prompt)
        content: str | None = f"<think>\nI think.\n</think>\n\n{self.answers[prompt]}"
        finish = "length" if place == 1 else "stop"
        content = {0: "wrong", 2: None}.get(place, content)
        choice = {"index": 0, "message": {"content": content}, "finish_reason": finish}
        said = json.dumps({"choices": [choice], "usage": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[type[Answering]]:
    class Bound(Answering):
        pass

    Bound.answers, Bound.seen = {}, []
    http = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    Bound.url = f"http://127.0.0.1:{http.server_port}"  # type: ignore[attr-defined]
    yield Bound
    http.shutdown()
    http.server_close()


@pytest.mark.skipif(not lm_eval_version(), reason="lm-eval is not installed here")
def test_lm_eval_asks_the_rehearsals_questions(answering: Any, tmp_path: Path) -> None:
    """The whole path, as every benchmark takes it: task file, local data, chat, extraction."""
    own = benchmark("rehearsal").model_copy(update={"questions": 12})
    data = write_own_questions(tmp_path, own)
    lines = (data / "rehearsal" / "test.jsonl").read_text().splitlines()
    tasks = [json.loads(line) for line in lines]
    assert len({task["kind"] for task in tasks}) == 4
    answering.answers = {task["prompt"]: task["answer"] for task in tasks}
    server: Server = SimpleNamespace(**{**vars(SERVER), "base_url": answering.url})  # type: ignore[assignment]
    job = job_of(server, own, limit=12, longest=2048, data=data_files(data, own))
    said = evaluate(job, "k", tmp_path / "kept", timeout=120, python=sys.executable)
    assert len(said) == len({answer.question for answer in said}) == 12
    assert sum(answer.right for answer in said) == 9
    assert sum(answer.truncated for answer in said) == 1
    assert sum(not answer.extracted and not answer.truncated for answer in said) == 1
    body = answering.seen[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.0, 1.0, 96)
    assert body["stop"] == []
    assert [message["role"] for message in body["messages"]] == ["user"]
