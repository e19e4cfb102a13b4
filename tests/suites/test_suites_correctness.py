"""The correctness checks: a model that is right on every server, and servers that are not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version
from proofs import broken, healthy
from stub_model import Stub, lost, noisy, scaled, tokenize, truth
from suites_world import World, deployment, plain

import suites.correctness.test_correctness as correctness
from acceptance.correctness.scoring import Scored, texts
from acceptance.deployments.installed import Vllm
from acceptance.errors import ObservationError
from acceptance.judging.judgement import Outcome
from fixtures.judging import OptionalSkip
from fixtures.selection import SELECTION
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.correctness.account import Account
    from acceptance.serving.server import Server

VLLM = Vllm(Version("0.32.0"), ("vllm",), cpu=True, python="vllm's python")
BF16 = noisy()
WRONG: dict[str, Stub] = {
    "another temperature": Stub(wrong=scaled(0.8)),
    "the rope of other positions": Stub(shifted=True),
    "one expert of sixteen lost": Stub(wrong=noisy(sigma=0.3, flips=0.2)),
    "a value that is no number": Stub(wrong=lost),
    "best tokens that are not": Stub(wrong=noisy(flips=0.12)),
}


@pytest.fixture
def prompts(world: World) -> dict[str, list[int]]:
    """As the fixture of the suite makes them."""
    made = plain(correctness.prompts)(server=world.server(), http=Stub().client())
    assert made == {name: tokenize(text) for name, text in texts().items()}
    return dict(made)


def scored_by(world: World, stub: Stub, prompts: dict[str, list[int]]) -> list[Scored]:
    return list(
        plain(correctness.scored)(server=world.server(), http=stub.client(), prompts=prompts)
    )


class TestAgainstTransformers:
    """test_log_probabilities_agree_with_transformers."""

    @pytest.fixture
    def check(
        self, world: World, prompts: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        """The check on a stub's answers; transformers says what is true."""

        def reference(
            checkpoint: str, asked: dict[str, list[int]], folder: Path, *, python: str
        ) -> list[Scored]:
            assert (checkpoint, python) == (str(world.run_dir), "vllm's python")
            assert folder == world.run_dir / "correctness" / world.deployment.name
            made = []
            for name, tokens in asked.items():
                true = [truth(tokens, place) for place in range(1, len(tokens))]
                made.append(Scored(name, tuple(tokens), *zip(*true, strict=True)))
            return made

        monkeypatch.setattr(correctness, "reference_scores", reference)

        def checking(stub: Stub, **server: Any) -> None:
            correctness.test_log_probabilities_agree_with_transformers(
                world.server(**{"vllm": VLLM, **server}),
                world.deployment,
                scored_by(world, stub, prompts),
                prompts,
                world.run,
                world.judge,
            )

        return checking

    @healthy(correctness.test_log_probabilities_agree_with_transformers)
    def test_bf16_is_no_fault(self, world: World, check: Any) -> None:
        check(Stub(wrong=BF16))
        assert world.outcomes == {
            "prompt_logprob_abs_diff_median": Outcome.PASS,
            "prompt_logprob_abs_diff_mean": Outcome.PASS,
            "prompt_top1_agreement": Outcome.PASS,
        }
        assert world.judged["prompt_top1_agreement"].measurement.evidence["positions"] > 1000

    @broken(correctness.test_log_probabilities_agree_with_transformers)
    @pytest.mark.parametrize("fault", WRONG)
    def test_is_a_fault(self, world: World, check: Any, fault: str) -> None:
        with pytest.raises(JudgementFailed):
            check(WRONG[fault])
        assert set(world.outcomes.values()) & {Outcome.FAIL, Outcome.INVALID}
        assert len(world.outcomes) == 3, "all three are recorded, whichever failed"

    @broken(correctness.test_log_probabilities_agree_with_transformers)
    def test_is_a_fault_of_the_reference_too(
        self, world: World, check: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none(*_: Any, **__: Any) -> list[Scored]:
            raise ObservationError("transformers could not score the texts")

        monkeypatch.setattr(correctness, "reference_scores", none)
        with pytest.raises(ObservationError):
            check(Stub())

    def test_is_not_asked_of_real_weights(self, world: World, check: Any) -> None:
        world.deployment = deployment("fp8-8xh200-tp-ep")
        with pytest.raises(OptionalSkip):
            check(Stub())

    @pytest.mark.parametrize(
        ("known", "told"),
        [({"vllm": None}, "reference"), ({"model_path": "/nowhere/tiny"}, "checkpoint")],
    )
    def test_is_not_observable_from_afar(
        self, check: Any, known: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(pytest.skip.Exception, match=f"{told} is not observable") as skip:
            check(Stub(), **known)
        assert not isinstance(skip.value, OptionalSkip)


class TestTwice:
    """test_scoring_twice_agrees."""

    def check(self, world: World, prompts: dict[str, list[int]], stub: Stub) -> None:
        first = scored_by(world, stub, prompts)
        correctness.test_scoring_twice_agrees(
            world.server(), stub.client(), first, prompts, world.judge
        )

    @healthy(correctness.test_scoring_twice_agrees)
    @pytest.mark.parametrize("again", [None, noisy(seed=2)], ids=["exactly", "but for bf16"])
    def test_the_same(self, world: World, prompts: dict[str, list[int]], again: Any) -> None:
        self.check(world, prompts, Stub(wrong=BF16, again=again))
        assert world.outcomes == {"repeat_logprob_abs_diff_median": Outcome.PASS}

    @broken(correctness.test_scoring_twice_agrees)
    @pytest.mark.parametrize("again", [noisy(sigma=0.2), scaled(0.7)], ids=["garbled", "scaled"])
    def test_another_answer(self, world: World, prompts: dict[str, list[int]], again: Any) -> None:
        with pytest.raises(JudgementFailed):
            self.check(world, prompts, Stub(again=again))
        assert world.outcomes == {"repeat_logprob_abs_diff_median": Outcome.FAIL}

    @broken(correctness.test_scoring_twice_agrees)
    def test_no_answer(self, world: World, prompts: dict[str, list[int]]) -> None:
        first = scored_by(world, Stub(), prompts)
        with pytest.raises(ObservationError, match="500"):
            correctness.test_scoring_twice_agrees(
                world.server(), Stub(status=500).client(), first, prompts, world.judge
            )


class TestLayouts:
    """other_layouts and the two checks that compare them."""

    @pytest.fixture
    def compared(self, world: World, prompts: dict[str, list[int]]) -> Any:
        """The accounts of TP, by one stub, and of DP, which runs after it, by another."""
        names = ("rehearsal-tp-ep", "rehearsal-dp-ep")
        chosen = tuple(deployment(name) for name in names)
        stash = {SELECTION: SimpleNamespace(chosen=chosen)}
        request = SimpleNamespace(config=SimpleNamespace(stash=stash))

        def account(name: str, stub: Stub) -> tuple[Account, dict[str, Account]]:
            world.deployment = deployment(name)
            made: tuple[Account, dict[str, Account]] = plain(correctness.other_layouts)(
                server=world.server(),
                deployment=world.deployment,
                http=stub.client(),
                scored=scored_by(world, stub, prompts),
                prompts=prompts,
                run=world.run,
                request=request,
            )
            return made

        def comparing(tensor: Stub, data: Stub) -> tuple[Account, dict[str, Account]]:
            with pytest.raises(OptionalSkip, match="compared when rehearsal-dp-ep has run too"):
                account("rehearsal-tp-ep", tensor)
            return account("rehearsal-dp-ep", data)

        comparing.alone = account  # type: ignore[attr-defined]
        comparing.request = request  # type: ignore[attr-defined]
        return comparing

    def test_whichever_runs_last_compares(self, world: World, compared: Any) -> None:
        mine, others = compared(Stub(wrong=BF16), Stub(wrong=noisy(seed=2)))
        assert list(others) == ["rehearsal-tp-ep"]
        assert mine.scored[0].tokens == others["rehearsal-tp-ep"].scored[0].tokens
        assert len(mine.greedy) == len(texts())
        assert {len(one.tokens) for one in mine.greedy} == {correctness.GREEDY_TOKENS}

    def test_a_layout_alone_has_nothing_to_be_compared_with(self, compared: Any) -> None:
        (tensor, _) = compared.request.config.stash[SELECTION].chosen
        compared.request.config.stash[SELECTION].chosen = (tensor, deployment("fp8-8xh200-dp-ep"))
        with pytest.raises(OptionalSkip, match="no other layout of this checkpoint"):
            compared.alone("rehearsal-tp-ep", Stub())

    @healthy(correctness.test_layouts_agree_on_log_probabilities)
    def test_but_for_bf16_they_agree(self, world: World, compared: Any) -> None:
        accounts = compared(Stub(wrong=BF16), Stub(wrong=noisy(seed=2)))
        correctness.test_layouts_agree_on_log_probabilities(accounts, world.judge)
        assert world.outcomes == {
            "layout_logprob_abs_diff_median": Outcome.PASS,
            "layout_top1_agreement": Outcome.PASS,
        }
        assert world.records[0].conditions["against"] == "rehearsal-tp-ep"

    @broken(correctness.test_layouts_agree_on_log_probabilities)
    @pytest.mark.parametrize("fault", WRONG)
    def test_they_are_apart(self, world: World, compared: Any, fault: str) -> None:
        accounts = compared(Stub(), WRONG[fault])
        with pytest.raises(JudgementFailed):
            self.judge_all(world, accounts)
        assert set(world.outcomes.values()) & {Outcome.FAIL, Outcome.INVALID}

    @staticmethod
    def judge_all(world: World, accounts: tuple[Account, dict[str, Account]]) -> None:
        """Both checks, as a run has them. One value among thousands is left to the second."""
        correctness.test_layouts_agree_on_log_probabilities(accounts, world.judge)
        correctness.test_layouts_choose_the_same_greedy_tokens(accounts, world.judge)

    @broken(correctness.test_layouts_agree_on_log_probabilities)
    def test_accounts_of_other_texts_are_no_agreement(self, world: World, compared: Any) -> None:
        mine, others = compared(Stub(), Stub())
        others["rehearsal-tp-ep"].scored.pop()
        with pytest.raises(ObservationError, match="different texts"):
            correctness.test_layouts_agree_on_log_probabilities((mine, others), world.judge)

    @healthy(correctness.test_layouts_choose_the_same_greedy_tokens)
    @pytest.mark.parametrize("split", [None, (9, 0.01)], ids=["everywhere", "where it is clear"])
    def test_the_same_tokens(self, world: World, compared: Any, split: Any) -> None:
        accounts = compared(Stub(wrong=BF16), Stub(wrong=noisy(seed=2), split=split))
        correctness.test_layouts_choose_the_same_greedy_tokens(accounts, world.judge)
        assert world.outcomes == {
            "greedy_split_gap_median": Outcome.PASS,
            "greedy_split_gap_max": Outcome.PASS,
        }

    @broken(correctness.test_layouts_choose_the_same_greedy_tokens)
    def test_another_token_where_the_choice_was_clear(self, world: World, compared: Any) -> None:
        accounts = compared(Stub(wrong=BF16), Stub(wrong=noisy(seed=2), split=(9, 3.0)))
        with pytest.raises(JudgementFailed, match="greedy_split_gap"):
            correctness.test_layouts_choose_the_same_greedy_tokens(accounts, world.judge)

    @broken(correctness.test_layouts_choose_the_same_greedy_tokens)
    def test_one_sure_split_among_many_ties(self, world: World, compared: Any) -> None:
        """The median is blind to it; the largest is held against the noise of this very run."""
        mine, others = compared(Stub(wrong=BF16), Stub(wrong=noisy(seed=2)))
        theirs = others["rehearsal-tp-ep"]
        for number, one in enumerate(theirs.greedy):
            gap = 2.0 if number == 0 else 0.01
            tokens = ("token_id:511", *one.tokens[1:])
            theirs.greedy[number] = type(one)(one.name, tokens, (gap, *one.gaps[1:]))
        for number, one in enumerate(mine.greedy):
            mine.greedy[number] = type(one)(one.name, one.tokens, (2.0, *one.gaps[1:]))
        with pytest.raises(JudgementFailed, match="greedy_split_gap_max"):
            correctness.test_layouts_choose_the_same_greedy_tokens((mine, others), world.judge)
        assert world.outcomes == {
            "greedy_split_gap_median": Outcome.PASS,
            "greedy_split_gap_max": Outcome.FAIL,
        }

    @broken(correctness.test_layouts_choose_the_same_greedy_tokens)
    def test_noise_without_a_number_excuses_nothing(self, world: World, compared: Any) -> None:
        accounts = compared(Stub(), Stub(wrong=lost, split=(9, 0.4)))
        with pytest.raises(JudgementFailed, match="its limit is not a finite number"):
            correctness.test_layouts_choose_the_same_greedy_tokens(accounts, world.judge)
        assert world.outcomes["greedy_split_gap_max"] is Outcome.INVALID


def test_a_server_that_counts_no_tokens_has_no_prompts(world: World) -> None:
    server: Server = world.server()
    with pytest.raises(ObservationError, match="/tokenize answered 404"):
        plain(correctness.prompts)(server=server, http=Stub(status=404).client())
