"""The checks that ask questions: a model that knows, and servers behind which it does not."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from proofs import broken, healthy
from stub_model import Stub
from suites_world import World, deployment, plain
from test_suites_correctness import held

import suites.correctness.test_accuracy as accuracy
import suites.correctness.test_generation as generation
import suites.correctness.test_long_context as long_context
import suites.correctness.test_other_apis as apis
from acceptance.correctness.free import OPEN
from acceptance.correctness.lmeval import Answer, NoData
from acceptance.correctness.strata import Shape
from acceptance.errors import ObservationError
from acceptance.judging.judgement import Outcome
from fixtures.judging import OptionalSkip
from fixtures.selection import SELECTION
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from collections.abc import Callable

PROSE = (
    "The harbour lies still before dawn, and the lamps along the pier go out one after another "
    "while gulls return. Later the first boats leave, each with a crew of three, and nobody speaks "
    "until the bar is passed."
)
SHAPE = Shape(page=64, chunk=8192, length=2048)
FULL = "fp8-8xh200-tp-ep"


class TestFreeText:
    """test_free_text_is_language."""

    def write(self, world: World, chats: Callable[[str], dict[str, Any]], name: str = FULL) -> None:
        world.deployment = deployment(name)
        generation.test_free_text_is_language(
            world.server(), world.deployment, Stub(chats=chats).client(), world.judge
        )

    @healthy(generation.test_free_text_is_language)
    def test_prose(self, world: World) -> None:
        self.write(world, lambda prompt: {"content": PROSE + prompt, "reasoning": "Let me think."})
        assert set(held(world).values()) == {Outcome.PASS}
        assert len(held(world)) == 3
        evidence = world.judged["texts_that_degenerate"].measurement.evidence
        assert evidence["texts"] == len(OPEN)

    @broken(generation.test_free_text_is_language)
    @pytest.mark.parametrize(
        ("said", "metric"),
        [
            ({"content": ""}, "texts_of_reasoning_alone"),
            ({"content": None}, "texts_of_reasoning_alone"),  # the end of thinking was dropped
            ({"content": "", "reasoning": "", "tokens": [0] * 40}, "texts_without_anything"),
            ({"content": None, "reasoning": None}, "texts_without_anything"),
            ({"content": "the end of the line " * 20}, "texts_that_degenerate"),
            ({"content": PROSE + " no" * 200}, "texts_that_degenerate"),
            ({"content": PROSE, "tokens": [7] * 60}, "texts_that_degenerate"),
        ],
        ids=["empty", "no-content", "only-bos", "nothing", "loop", "tail", "collapse"],
    )
    def test_no_language(self, world: World, said: dict[str, Any], metric: str) -> None:
        with pytest.raises(JudgementFailed, match=metric):
            self.write(world, lambda _: said)

    def test_of_random_weights_only_emptiness_is_judged(self, world: World) -> None:
        loops: dict[str, Any] = {"content": "ab ab ab " * 30, "tokens": [9] * 60}
        self.write(world, lambda _: loops, "simulated-fp8-8xh200-tp-ep")
        assert held(world) == {"texts_without_anything": Outcome.PASS}
        with pytest.raises(JudgementFailed, match="texts_without_anything"):
            self.write(
                world,
                lambda _: {"content": "", "reasoning": None, "tokens": [0] * 9},
                "simulated-fp8-8xh200-tp-ep",
            )


class TestNeedles:
    """test_a_needle_is_found_at_every_depth."""

    def ask(self, world: World, chats: Callable[[str], dict[str, Any]], name: str = FULL) -> None:
        world.deployment = deployment(name)
        config: Any = SimpleNamespace(option=SimpleNamespace(tier="smoke"))
        long_context.test_a_needle_is_found_at_every_depth(
            world.server(),
            world.deployment,
            Stub(chats=chats).client(),
            SHAPE,
            config,
            world.judge,
        )

    @staticmethod
    def read(prompt: str) -> str:
        """The code of what is asked for, as one who sees the whole prompt."""
        thing = prompt.rpartition("code of the ")[2].partition("?")[0]
        return prompt.partition(f"code of the {thing} is ")[2][:4]

    @healthy(long_context.test_a_needle_is_found_at_every_depth)
    def test_found(self, world: World) -> None:
        self.ask(world, lambda prompt: {"content": self.read(prompt)})
        assert held(world) == {"needles_found_where_fewest": Outcome.PASS}
        evidence = world.judged["needles_found_where_fewest"].measurement.evidence
        assert list(evidence["found"].values()) == [1.0] * 5
        assert 1450 <= evidence["longest"] <= 1536

    @broken(long_context.test_a_needle_is_found_at_every_depth)
    @pytest.mark.parametrize("half", ["first", "second"])
    def test_half_of_the_context_is_not_seen(self, world: World, half: str) -> None:
        def answer(prompt: str) -> dict[str, Any]:
            middle = len(prompt) // 2
            kept = prompt[middle:] if half == "first" else prompt[:middle] + prompt[-80:]
            return {"content": self.read(kept)}

        with pytest.raises(JudgementFailed, match="needles_found_where_fewest"):
            self.ask(world, answer)

    def test_random_weights_find_nothing(self, world: World) -> None:
        with pytest.raises(OptionalSkip):
            self.ask(world, lambda _: {}, "simulated-fp8-8xh200-tp-ep")


class TestOtherApis:
    """suites/correctness/test_other_apis.py."""

    @staticmethod
    def server(count: int = 9, status: str = "completed") -> Any:
        import httpx

        def handle(request: httpx.Request) -> httpx.Response:
            said: dict[str, Any] = {
                "/v1/responses": {
                    "object": "response",
                    "status": status,
                    "usage": {"input_tokens": 9, "output_tokens": 8},
                },
                "/v1/messages": {"type": "message", "usage": {"input_tokens": 9}},
                "/v1/messages/count_tokens": {"input_tokens": count},
                "/v1/chat/completions": {"usage": {"prompt_tokens": 9}},
            }[request.url.path]
            return httpx.Response(200, json=said)

        return httpx.Client(transport=httpx.MockTransport(handle), base_url="http://server.test")

    def ask(self, world: World, http: Any) -> None:
        for check in (apis.test_responses_answers, apis.test_messages_counts_as_it_says):
            check(world.server(), world.deployment, http, world.record_check)

    @healthy(apis.test_responses_answers, apis.test_messages_counts_as_it_says)
    def test_all_answer_alike(self, world: World) -> None:
        self.ask(world, self.server())

    @broken(apis.test_responses_answers)
    def test_an_answer_that_failed(self, world: World) -> None:
        with pytest.raises(AssertionError):
            self.ask(world, self.server(status="failed"))

    @broken(apis.test_messages_counts_as_it_says)
    def test_another_count(self, world: World) -> None:
        with pytest.raises(AssertionError):
            self.ask(world, self.server(count=10))

    def test_the_simulation_has_no_such_route(self, world: World) -> None:
        world.deployment = deployment("simulated-fp8-8xh200-tp-ep")
        with pytest.raises(OptionalSkip):
            self.ask(world, self.server())


def given(right: int, n: int, *, cut: int = 0, names: str = "q") -> list[Answer]:
    """So many right answers of n; of the wrong ones, so many truncated."""
    return [Answer(f"{names}{i}", i < right, i < n - cut, i >= n - cut, "42") for i in range(n)]


class TestAccuracy:
    """test_accuracy_holds_its_reference."""

    def judge(self, world: World, right: int, n: int = 1319, **more: Any) -> None:
        world.deployment = deployment(FULL)
        config: Any = SimpleNamespace(option=SimpleNamespace(tier="gate"))
        accuracy.test_accuracy_holds_its_reference(
            world.deployment, {"gsm8k": given(right, n, **more)}, world.judge, config
        )

    @healthy(accuracy.test_accuracy_holds_its_reference)
    def test_as_published(self, world: World) -> None:
        self.judge(world, round(0.954 * 1319), cut=3)
        assert held(world) == {"accuracy_gsm8k": Outcome.MARGINAL}  # 1.4 % above the bar
        judged = world.judged["accuracy_gsm8k"]
        assert judged.limit is not None
        assert "power 99%" in judged.limit.source
        assert judged.measurement.evidence["temperature"] == 0.6
        assert judged.measurement.evidence["top_p"] == 0.95
        assert world.judged["accuracy_gsm8k_truncated"].measurement.value == 3

    @broken(accuracy.test_accuracy_holds_its_reference)
    @pytest.mark.parametrize("share", [0.005, 0.04, 0.9], ids=["#23282", "#31918", "a little"])
    def test_far_below(self, world: World, share: float) -> None:
        with pytest.raises(JudgementFailed):
            self.judge(world, round(share * 1319))
        assert held(world) == {"accuracy_gsm8k": Outcome.FAIL}

    @broken(accuracy.test_accuracy_holds_its_reference)
    def test_what_n_cannot_tell_is_no_pass(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="neither enough nor too few"):
            self.judge(world, round(0.93 * 1319))
        assert held(world) == {"accuracy_gsm8k": Outcome.INVALID}

    @broken(accuracy.test_accuracy_holds_its_reference)
    def test_questions_without_an_answer(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="1300 of 1319 questions"):
            self.judge(world, 1290, 1300)

    def test_a_model_without_a_reference_is_ungated(self, world: World) -> None:
        world.deployment = deployment("v3-fp8-8xh200-tp-ep")
        config: Any = SimpleNamespace(option=SimpleNamespace(tier="gate"))
        accuracy.test_accuracy_holds_its_reference(
            world.deployment, {"gsm8k": given(1250, 1319)}, world.judge, config
        )
        assert held(world) == {"accuracy_gsm8k": Outcome.UNGATED}


class TestPaired:
    """test_the_same_questions_are_answered_as_well_elsewhere."""

    def compare(self, world: World, before: list[Answer], after: list[Answer], **more: Any) -> None:
        world.deployment = deployment("fp8-8xh200-dp-ep")
        folder = world.run_dir / "correctness"
        folder.mkdir(exist_ok=True)
        kept = {answer.question: answer.right for answer in before}
        (folder / f"{FULL}.gsm8k.answers.json").write_text(json.dumps(kept))
        chosen = (deployment(FULL), world.deployment)
        config: Any = SimpleNamespace(
            stash={SELECTION: SimpleNamespace(chosen=chosen)},
            option=SimpleNamespace(accuracy_against=more.get("against")),
        )
        accuracy.test_the_same_questions_are_answered_as_well_elsewhere(
            world.deployment, {"gsm8k": after}, world.run, config, world.judge
        )

    @healthy(accuracy.test_the_same_questions_are_answered_as_well_elsewhere)
    def test_two_layouts_of_one_mind(self, world: World) -> None:
        self.compare(world, given(1258, 1319), given(1260, 1319))
        assert held(world) == {"accuracy_gsm8k_paired": Outcome.PASS}
        assert world.records[-1].conditions["against"] == FULL

    @broken(accuracy.test_the_same_questions_are_answered_as_well_elsewhere)
    def test_one_answers_worse(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="accuracy_gsm8k_paired"):
            self.compare(world, given(1258, 1319), given(1200, 1319))
        assert held(world) == {"accuracy_gsm8k_paired": Outcome.FAIL}

    @broken(accuracy.test_the_same_questions_are_answered_as_well_elsewhere)
    def test_too_few_to_tell(self, world: World) -> None:
        with pytest.raises(JudgementFailed):
            self.compare(world, given(47, 50), given(46, 50))
        assert held(world) == {"accuracy_gsm8k_paired": Outcome.INVALID}

    def test_another_run_of_the_same_questions(self, world: World) -> None:
        other = world.run_dir / "other" / "correctness"
        other.mkdir(parents=True)
        kept = {answer.question: answer.right for answer in given(1250, 1319)}
        (other / "fp4-4xb200-tp-ep.gsm8k.answers.json").write_text(json.dumps(kept))
        self.compare(world, given(1258, 1319), given(1256, 1319), against=other.parent)
        against = {r.conditions["against"] for r in world.records}
        assert against == {FULL, "fp4-4xb200-tp-ep of other"}

    def test_nobody_has_answered_before(self, world: World) -> None:
        config: Any = SimpleNamespace(
            stash={SELECTION: SimpleNamespace(chosen=(world.deployment,))},
            option=SimpleNamespace(accuracy_against=None),
        )
        with pytest.raises(OptionalSkip):
            accuracy.test_the_same_questions_are_answered_as_well_elsewhere(
                world.deployment, {"gsm8k": given(1, 2)}, world.run, config, world.judge
            )


class TestAsking:
    """The fixture that runs lm-eval."""

    @pytest.fixture
    def ask(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
        def asking(evaluate: Any, name: str = FULL, version: str = "0.4.13") -> Any:
            world.deployment = deployment(name)
            monkeypatch.setattr(accuracy, "evaluate", evaluate)
            monkeypatch.setattr(accuracy, "lm_eval_version", lambda: version)
            option = SimpleNamespace(accuracy=[], accuracy_data=None, tier="smoke", waive=[])
            config: Any = SimpleNamespace(option=option)
            return plain(accuracy.answers)(
                server=world.server(),
                deployment=world.deployment,
                shape=SHAPE,
                run=world.run,
                pytestconfig=config,
            )

        return asking

    def test_what_is_asked(self, world: World, ask: Any) -> None:
        asked: list[dict[str, Any]] = []

        def evaluate(job: dict[str, Any], key: str, *_: Any, **__: Any) -> list[Answer]:
            asked.append(job)
            assert key == "the-key"
            return given(3, 4)

        assert ask(evaluate) == {"gsm8k": given(3, 4)}
        (job,) = asked
        assert (job["task"], job["limit"], job["data"]) == ("gsm8k", 200, {})
        assert job["sampling"] == {"temperature": 0.6, "top_p": 0.95}
        assert "the-key" not in json.dumps(job)
        kept = json.loads(
            (world.run_dir / "correctness" / f"{FULL}.gsm8k.answers.json").read_text()
        )
        assert kept == {"q0": True, "q1": True, "q2": True, "q3": False}

    def test_no_data_is_no_pass_and_no_excuse(self, ask: Any) -> None:
        def evaluate(*_: Any, **__: Any) -> list[Answer]:
            raise NoData("the data set of gsm8k cannot be had: offline")

        with pytest.raises(pytest.skip.Exception, match="cannot be had") as skip:
            ask(evaluate)
        assert not isinstance(skip.value, OptionalSkip)

    def test_no_lm_eval_is_no_pass_and_no_excuse(self, ask: Any) -> None:
        with pytest.raises(pytest.skip.Exception, match="not installed") as skip:
            ask(None, version="")
        assert not isinstance(skip.value, OptionalSkip)

    def test_lm_eval_that_fails_is_a_failure(self, ask: Any) -> None:
        def evaluate(*_: Any, **__: Any) -> list[Answer]:
            raise ObservationError("lm-eval failed")

        with pytest.raises(ObservationError):
            ask(evaluate)

    def test_random_weights_are_asked_nothing(self, ask: Any) -> None:
        with pytest.raises(OptionalSkip):
            ask(None, "simulated-fp8-8xh200-tp-ep")
