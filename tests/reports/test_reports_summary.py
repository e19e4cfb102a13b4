"""The report as a function of the results: what it says, and what it never says."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.deployments.schema import Lane
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Judgement, Kind, Limit, Measurement, Outcome
from reports import text
from reports.reading import Problem, Results
from reports.ruling import verdict_of
from reports.schema import (
    Check,
    EndRecord,
    GpuIdentity,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    ServerRecord,
    Trace,
)
from reports.summary import render_page, render_summary
from reports.terminal import closing_lines

COMMAND = "CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve nvidia/DeepSeek-R1-FP4 --trust-remote-code"
VOID = {"meta", "br", "rect", "line", "img", "link", "input"}


class Shape(HTMLParser):
    """Checks that tags nest, and collects tags, ids of events and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def run(lane: Lane, **more: Any) -> RunRecord:
    return RunRecord(
        time=1.0,
        suite_version="0.1",
        suite_commit="abc",
        argv=("pytest", "-m", "fp4"),
        host="node7",
        vllm="0.32.0",
        gpus=(GpuIdentity(name="NVIDIA B200", uuid="GPU-1"),),
        deployments=(
            SelectedDeployment(
                name="d", digest="d1gest", lane=lane, model="nvidia/DeepSeek-R1-FP4", gpus="4xB200"
            ),
        ),
        **more,
    )


def judged(
    outcome: Outcome = Outcome.PASS, words: str = "w", lane: Lane = Lane.FULL
) -> JudgementRecord:
    limit = Limit(kind=Kind.CEILING, upper=15.85, unit="ms", source=f"source {words}")
    return JudgementRecord(
        time=2.0,
        check=Check(
            deployment="d", lane=lane, area="performance", check=f"t::{words}", title=words
        ),
        judgement=Judgement(
            outcome=outcome,
            measurement=Measurement(name="tpot_mean_ms", value=14.9, unit="ms"),
            limit=limit,
            margin=0.06,
            reason=words,
        ),
        trace=Trace(cause=words, excerpt=(words,), hint=words),
    )


def end(word: str) -> EndRecord:
    return EndRecord(time=3.0, finished=True, exit_status=0, word=word, duration=125)


def whole(lane: Lane = Lane.FULL, word: str = "ACCEPTED") -> Results:
    ready = ServerRecord(
        time=1.5,
        deployment="d",
        profile="benchmark",
        outcome="ready",
        phases={"loading": 60.0, "capturing": 30.0},
        command=COMMAND,
        vllm="0.32.0",
    )
    return Results((run(lane), ready, judged(lane=lane), end(word)))


def test_says_everything_a_signer_asks():
    html = render_summary(whole())
    Shape(html)
    for told in (
        "ACCEPTED",
        "node7",
        "NVIDIA B200 GPU-1",
        "0.32.0",
        "abc",
        "2 min 05 s",
        COMMAND,
        "d1gest",
        "14.9 ms",
        "at most 15.85 ms",
        "+6.0 %",
        "source w",
        "loading 1 min 00 s",
    ):
        assert told in html
    assert html.index("ACCEPTED") < html.index("Deployments") < html.index("Judgements <")


@pytest.mark.parametrize(
    ("lane", "word"),
    [
        (Lane.REHEARSAL, "REHEARSED"),
        (Lane.SLICE, "SLICE PASSED"),
        (Lane.SIMULATED, "SIMULATED"),
    ],
)
def test_other_lanes_are_labelled_everywhere_and_accept_nothing(lane, word):
    results = whole(lane, word)
    html = render_page(results)
    assert word in html
    assert "ACCEPTED" not in html
    assert "ACCEPTED" not in "\n".join(closing_lines(results, "r"))
    for heading in ("Deployments", "Judgements", "The run"):
        assert f'{heading} <span class="lane">{lane.value}</span>' in html


def test_root_causes_come_before_the_judgements():
    results = Results((run(Lane.FULL), judged(Outcome.FAIL, "NCCL fell over"), end("REJECTED")))
    html = render_summary(results)
    assert html.index("REJECTED") < html.index("<code>NCCL fell over</code>")
    assert html.index("Deployments") < html.index("<code>NCCL fell over</code>")
    assert html.index("<code>NCCL fell over</code>") < html.index("Judgements <")


def test_what_is_short_says_why():
    html = render_summary(Results((run(Lane.FULL), judged()), (Problem(3, "torn"),)))
    assert "INCOMPLETE" in html
    assert "did not reach its end" in html
    assert "results.jsonl line 3: torn" in html
    assert "then was cut off" in html


def test_nothing_at_all_can_be_rendered():
    Shape(render_summary(Results()))
    assert "INCOMPLETE  nothing was judged" in closing_lines(Results(), "r")


foreign = st.text() | st.sampled_from(
    ["<script>x</script>", '"><svg onload=x>', "{{ 7191*7193 }}", "\x00\x1b[31m\u202e", "a" * 9000]
)


@given(foreign, st.sampled_from(Outcome))
def test_foreign_text_is_inert(words, outcome):
    results = Results((run(Lane.FULL, tier=words), judged(outcome, words), end("REJECTED")))
    plain = Results((run(Lane.FULL, tier="w"), judged(outcome, "w"), end("REJECTED")))
    made, expected = Shape(render_page(results)), Shape(render_page(plain))
    assert set(made.tags) <= set(expected.tags) | {"br"}
    assert made.handlers == []
    html = render_page(results)
    assert not any(char in html for char in "\x00\x1b\u202e\u2066")
    assert str(7191 * 7193) not in html


@given(
    st.sampled_from(Lane),
    st.lists(st.builds(judged, st.sampled_from(Outcome)), max_size=4),
    st.booleans(),
)
def test_the_page_accepts_only_what_the_record_accepts(lane, lines, ended):
    results = Results((run(lane), *lines, *([end("ACCEPTED")] if ended else [])))
    accepted = verdict_of(results).word == "ACCEPTED"
    assert ("ACCEPTED" in render_page(results).replace("ended ACCEPTED", "")) is accepted


def test_margin_agrees_with_its_sign():
    record = judged().model_copy(
        update={
            "judgement": judge(
                Measurement(name="m", value=20.0, unit="ms"),
                Limit(kind=Kind.CEILING, upper=10, unit="ms", source="s"),
            )
        }
    )
    html = render_summary(Results((run(Lane.FULL), record, end("REJECTED"))))
    assert "−100.0 %" in html


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "–"),
        (0.85, "850 ms"),
        (3.21, "3.2 s"),
        (59.99, "60.0 s"),
        (125, "2 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_duration(seconds, told):
    assert text.duration(seconds) == told


def test_visible_keeps_ordinary_text_and_spells_the_rest():
    assert text.visible("naïve 日本 <b>\n\t") == "naïve 日本 <b>\n\t"
    assert text.visible("\x1b[0;36mred\x1b[0m") == "red"
    assert text.visible("a\x00b\u202ec") == "a\\x00b\\u202ec"
    assert text.visible("x" * 10, 4) == "xxxx … (6 more characters)"


def test_record_that_no_section_expects_still_has_its_verdict():
    record = judged(Outcome.FAIL, "w")
    odd = record.judgement.measurement.model_copy(
        update={"evidence": {"warm_up_waves_s": ["soon"], "physical_bounds": 7, "client": [1]}}
    )
    record = record.model_copy(
        update={
            "judgement": record.judgement.model_copy(update={"measurement": odd}),
            "conditions": {"workload": "balanced", "batch": 1},
        }
    )
    html = render_page(Results((run(Lane.FULL), record, end("REJECTED"))))
    Shape(html)
    assert "REJECTED" in html
    assert "could not be drawn" in html
    assert "node7" in html
