"""The checks that compare log-probabilities: a model that is right on every server, and servers
that are not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version
from proofs import broken, healthy
from stub_model import BF16, EXPERT, WRONG, Stub, noisy, scaled
from suites_world import World, deployment, plain

import suites.correctness.conftest as shared
import suites.correctness.test_agreement as agreement_checks
import suites.correctness.test_decode as decode
import suites.correctness.test_noise as noise
from acceptance.correctness.account import Account
from acceptance.correctness.floor import Floor
from acceptance.correctness.golden import Binding, Golden
from acceptance.correctness.reference import Reference
from acceptance.correctness.scoring import Scored, greedy, score
from acceptance.correctness.strata import Shape
from acceptance.correctness.texts import corpus
from acceptance.deployments.installed import Vllm
from acceptance.errors import ObservationError
from acceptance.judging.judgement import Outcome
from fixtures.judging import OptionalSkip
from fixtures.selection import SELECTION
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from pathlib import Path

VLLM = Vllm(Version("0.32.0"), ("vllm",), cpu=True, python="vllm's python")
MODEL = "generated/deepseek-v3-tiny"
SHAPE = Shape(page=16, chunk=2048, length=2048)
PROMPTS = {
    name: [0, *(ord(character) % 89 + 6 for character in text[:110])]
    for name, text in corpus(8).items()
}
TP, DP = "rehearsal-tp-ep", "rehearsal-dp-ep"


def scored_by(stub: Stub) -> list[Scored]:
    return score(stub.client(), MODEL, PROMPTS)


def floor_of(stub: Stub) -> Floor:
    made: Floor = plain(shared.floor)(
        server=SimpleNamespace(model=MODEL),
        deployment=deployment(),
        bulk=stub.client(),
        prompts=PROMPTS,
        scored=scored_by(stub),
    )
    return made


def account_of(stub: Stub) -> Account:
    short = {name: tokens[:24] for name, tokens in PROMPTS.items()}
    return Account(scored_by(stub), greedy(stub.client(), MODEL, short, 12))


def held(world: World) -> dict[str, Outcome]:
    """Outcomes of what is required."""
    return {n: j.outcome for n, j in world.judged.items() if j.required}


class TestNoise:
    """suites/correctness/test_noise.py."""

    @healthy(
        noise.test_the_same_texts_score_the_same_again,
        noise.test_a_text_alone_scores_as_in_a_batch,
        noise.test_the_noise_floor_is_told,
    )
    @pytest.mark.parametrize("again", [None, noisy(seed=2)], ids=["exactly", "but for bf16"])
    def test_one_server(self, world: World, again: Any) -> None:
        floor = floor_of(Stub(wrong=BF16, again=again))
        noise.test_the_same_texts_score_the_same_again(floor, world.judge)
        noise.test_a_text_alone_scores_as_in_a_batch(floor, world.judge)
        noise.test_the_noise_floor_is_told(floor, world.deployment, world.run, world.judge)
        assert set(held(world).values()) == {Outcome.PASS}
        assert "repeat_logprob_abs_diff_mean" in world.outcomes
        kept = world.judged["noise_floor_mean"].measurement.evidence
        assert set(kept["parts"]) == {"repeat", "batch"}
        assert "noise floor" in kept["rule"]
        told = (world.run_dir / "correctness" / "rehearsal-tp-ep.floor.txt").read_text()
        assert told.startswith("mean |dlogp| ")

    @broken(
        noise.test_the_same_texts_score_the_same_again,
        noise.test_a_text_alone_scores_as_in_a_batch,
        noise.test_the_noise_floor_is_told,
    )
    @pytest.mark.parametrize("again", [EXPERT, scaled(0.7)], ids=["garbled", "scaled"])
    def test_another_answer(self, world: World, again: Any) -> None:
        floor = floor_of(Stub(again=again))
        with pytest.raises(JudgementFailed, match="repeat_"):
            noise.test_the_same_texts_score_the_same_again(floor, world.judge)
        with pytest.raises(JudgementFailed, match="batch_"):
            noise.test_a_text_alone_scores_as_in_a_batch(floor, world.judge)
        with pytest.raises(JudgementFailed, match="noise_floor_"):
            noise.test_the_noise_floor_is_told(floor, world.deployment, world.run, world.judge)

    def ranks(self, world: World, stub: Stub) -> None:
        world.deployment = deployment(DP)
        floor = Floor(world.deployment.precision)
        noise.test_every_rank_scores_the_same(
            world.server(), world.deployment, stub.client(), PROMPTS, floor, world.judge
        )
        assert list(floor.parts) == ["rank 1"]

    @healthy(noise.test_every_rank_scores_the_same)
    def test_ranks_alike(self, world: World) -> None:
        self.ranks(world, Stub(engines=2, ranks={"0": BF16, "1": noisy(seed=2)}))
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(noise.test_every_rank_scores_the_same)
    def test_one_bad_rank(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="rank_logprob_abs_diff_mean"):
            self.ranks(world, Stub(engines=2, ranks={"1": EXPERT}))

    @broken(noise.test_every_rank_scores_the_same)
    def test_a_header_that_nobody_reads_shows_nothing_of_ranks(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="ranks_that_answered"):
            self.ranks(world, Stub(engines=2, routed=False))

    def test_one_engine_has_no_other_rank(self, world: World) -> None:
        with pytest.raises(OptionalSkip):
            noise.test_every_rank_scores_the_same(
                world.server(),
                world.deployment,
                Stub().client(),
                PROMPTS,
                Floor(world.deployment.precision),
                world.judge,
            )


class TestAgainstTransformers:
    """test_log_probabilities_agree_with_transformers."""

    @pytest.fixture
    def check(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The check on a stub's answers; transformers says what is true."""
        true, rounded = scored_by(Stub()), scored_by(Stub(wrong=BF16))

        def reference(
            checkpoint: str, asked: dict[str, list[int]], folder: Path, *, python: str
        ) -> Reference:
            assert (checkpoint, python) == (str(world.run_dir), "vllm's python")
            assert folder == world.run_dir / "correctness" / "reference"
            return Reference(true, rounded)

        monkeypatch.setattr(agreement_checks, "reference_scores", reference)

        def checking(stub: Stub, **server: Any) -> None:
            agreement_checks.test_log_probabilities_agree_with_transformers(
                world.server(**{"vllm": VLLM, **server}),
                world.deployment,
                scored_by(stub),
                PROMPTS,
                Floor(world.deployment.precision),
                world.run,
                world.judge,
            )

        return checking

    @healthy(agreement_checks.test_log_probabilities_agree_with_transformers)
    def test_bf16_is_no_fault(self, world: World, check: Any) -> None:
        check(Stub(wrong=noisy(seed=3)))
        assert held(world) == {
            "prompt_logprob_abs_diff_mean": Outcome.PASS,
            "prompt_kl_divergence": Outcome.PASS,
            "prompt_top1_disagreement": Outcome.PASS,
            "prompt_nll_loss_upper": Outcome.PASS,
        }
        told = world.judged["prompt_logprob_abs_diff_mean"]
        assert told.measurement.evidence["positions"] > 700
        assert told.limit is not None
        assert "precision" in told.limit.source

    @broken(agreement_checks.test_log_probabilities_agree_with_transformers)
    @pytest.mark.parametrize("fault", WRONG)
    def test_is_a_fault(self, world: World, check: Any, fault: str) -> None:
        with pytest.raises(JudgementFailed):
            check(Stub(**WRONG[fault]))
        assert set(held(world).values()) & {Outcome.FAIL, Outcome.INVALID}
        assert len(held(world)) == 4, "all are recorded, whichever failed"

    @broken(agreement_checks.test_log_probabilities_agree_with_transformers)
    def test_is_a_fault_of_the_reference_too(
        self, world: World, check: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none(*_: Any, **__: Any) -> Reference:
            raise ObservationError("transformers could not score the texts")

        monkeypatch.setattr(agreement_checks, "reference_scores", none)
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


class TestLayouts:
    """other_layouts and the checks that compare them."""

    @pytest.fixture
    def others(self, world: World) -> Any:
        """What the second of two layouts finds of the first."""
        chosen = (deployment(TP), deployment(DP))
        stash = {SELECTION: SimpleNamespace(chosen=chosen)}
        request = SimpleNamespace(config=SimpleNamespace(stash=stash))

        def finding(name: str, account: Account) -> dict[str, Account]:
            world.deployment = deployment(name)
            made: dict[str, Account] = plain(shared.other_layouts)(
                deployment=world.deployment, account=account, run=world.run, request=request
            )
            return made

        finding.stash = stash  # type: ignore[attr-defined]
        return finding

    def compare(self, world: World, others: Any, tensor: Stub, data: Stub) -> None:
        """All checks that compare layouts, as a run has them."""
        with pytest.raises(OptionalSkip, match=f"compared when {DP} has run too"):
            others(TP, account_of(tensor))
        mine = account_of(data)
        theirs = others(DP, mine)
        assert list(theirs) == [TP]
        floor = Floor(world.deployment.precision)
        agreement_checks.test_layouts_agree_on_log_probabilities(
            world.deployment, mine, theirs, floor, world.run, world.judge
        )
        compared = {TP: (theirs[TP].scored, mine.scored)}
        agreement_checks.test_agreement_holds_at_every_position(
            compared, world.deployment, SHAPE, floor, world.run, world.judge
        )
        decode.test_layouts_choose_the_same_greedy_tokens(mine, theirs, floor, world.judge)

    @healthy(
        agreement_checks.test_layouts_agree_on_log_probabilities,
        agreement_checks.test_agreement_holds_at_every_position,
        decode.test_layouts_choose_the_same_greedy_tokens,
    )
    def test_but_for_bf16_they_agree(self, world: World, others: Any) -> None:
        self.compare(world, others, Stub(wrong=BF16), Stub(wrong=noisy(seed=2)))
        assert set(held(world).values()) == {Outcome.PASS}
        strata = {r.conditions["stratum"] for r in world.records if "stratum" in r.conditions}
        assert strata == {"first", "page-borders"}
        assert world.records[0].conditions["against"] == TP

    def test_a_layout_alone_has_nothing_to_be_compared_with(self, others: Any) -> None:
        others.stash[SELECTION].chosen = (deployment(TP), deployment("fp8-8xh200-dp-ep"))
        with pytest.raises(OptionalSkip, match="no other layout of this checkpoint"):
            others(TP, account_of(Stub()))

    @broken(agreement_checks.test_layouts_agree_on_log_probabilities)
    @pytest.mark.parametrize("fault", WRONG)
    def test_they_are_apart(self, world: World, others: Any, fault: str) -> None:
        with pytest.raises(JudgementFailed):
            self.compare(world, others, Stub(), Stub(**WRONG[fault]))
        assert set(world.outcomes.values()) & {Outcome.FAIL, Outcome.INVALID}

    @broken(agreement_checks.test_agreement_holds_at_every_position)
    def test_a_defect_at_page_borders_alone(self, world: World) -> None:
        """The average over all positions is blind to it."""

        def at_borders(row: dict[int, float], place: int) -> dict[int, float]:
            return {t: v - 0.3 for t, v in row.items()} if place % 16 == 0 else row

        good, bad = scored_by(Stub()), scored_by(Stub(wrong=at_borders))
        floor = Floor(world.deployment.precision)
        with pytest.raises(JudgementFailed, match="stratum_logprob_abs_diff_mean"):
            agreement_checks.test_agreement_holds_at_every_position(
                {DP: (good, bad)}, world.deployment, SHAPE, floor, world.run, world.judge
            )
        failed = [r for r in world.records if r.judgement.outcome is Outcome.FAIL]
        assert {r.conditions["stratum"] for r in failed} == {"page-borders"}

    def test_strata_need_something_to_be_compared_with(self, world: World) -> None:
        with pytest.raises(OptionalSkip):
            agreement_checks.test_agreement_holds_at_every_position(
                {},
                world.deployment,
                SHAPE,
                Floor(world.deployment.precision),
                world.run,
                world.judge,
            )

    @broken(decode.test_layouts_choose_the_same_greedy_tokens)
    def test_one_sure_split_among_many_ties(self, world: World) -> None:
        """The median is blind to it; the largest is held against the noise of this very run."""
        mine = account_of(Stub(wrong=BF16))
        theirs = account_of(Stub(wrong=noisy(seed=2)))
        for account, shift in ((mine, 0), (theirs, 1)):
            for number, one in enumerate(account.greedy):
                gap = 2.0 if number == 0 else 0.01
                account.greedy[number] = replace(
                    one,
                    tokens=(one.tokens[0] + shift, *one.tokens[1:]),
                    gaps=(gap, *one.gaps[1:]),
                )
        with pytest.raises(JudgementFailed, match="greedy_split_gap_max"):
            decode.test_layouts_choose_the_same_greedy_tokens(
                mine, {DP: theirs}, Floor(world.deployment.precision), world.judge
            )
        assert held(world) == {
            "greedy_split_gap_median": Outcome.PASS,
            "greedy_split_gap_max": Outcome.FAIL,
        }

    @healthy(decode.test_layouts_choose_the_same_greedy_tokens)
    def test_a_router_s_tie_is_noise_also_where_no_given_token_met_it(self, world: World) -> None:
        """A healthy rehearsal over two nodes: a gap of 0.3125 nats, given tokens within 0.156."""
        mine, theirs = account_of(Stub()), account_of(Stub())
        one = mine.greedy[0]
        mine.greedy[0] = replace(one, gaps=(0.3125, *one.gaps[1:]))
        theirs.greedy[0] = replace(
            one, tokens=(one.tokens[0] + 1, *one.tokens[1:]), gaps=(0.32, *one.gaps[1:])
        )
        decode.test_layouts_choose_the_same_greedy_tokens(
            mine, {DP: theirs}, Floor(world.deployment.precision), world.judge
        )
        assert world.records[-1].judgement.measurement.value == 0.3125

    @broken(decode.test_layouts_choose_the_same_greedy_tokens)
    def test_noise_without_a_number_excuses_nothing(self, world: World) -> None:
        mine, theirs = account_of(Stub()), account_of(Stub())
        first = theirs.scored[0]
        theirs.scored[0] = replace(first, logprobs=(float("nan"), *first.logprobs[1:]))
        with pytest.raises(JudgementFailed, match="its limit is not a finite number"):
            decode.test_layouts_choose_the_same_greedy_tokens(
                mine, {DP: theirs}, Floor(world.deployment.precision), world.judge
            )


class TestGolden:
    """What an accepted run said before."""

    @staticmethod
    def golden(stub: Stub) -> Golden:
        return Golden(TP, "tp2+ep", MODEL, "0.31.0", Binding("a", "b", "c"), account_of(stub))

    def compare(self, world: World, now: Stub) -> None:
        golden, mine = self.golden(Stub(wrong=BF16)), account_of(now)
        floor = Floor(world.deployment.precision)
        decode.test_greedy_tokens_are_those_of_the_golden_record(mine, golden, floor, world.judge)
        agreement_checks.test_log_probabilities_agree_with_the_golden_record(
            world.deployment, mine, golden, floor, world.run, world.judge
        )

    @healthy(
        agreement_checks.test_log_probabilities_agree_with_the_golden_record,
        decode.test_greedy_tokens_are_those_of_the_golden_record,
    )
    def test_an_upgrade_that_changes_nothing(self, world: World) -> None:
        self.compare(world, Stub(wrong=noisy(seed=2)))
        assert set(held(world).values()) == {Outcome.PASS}
        assert world.records[-1].conditions["against"] == f"{TP}, vLLM 0.31.0"

    @broken(agreement_checks.test_log_probabilities_agree_with_the_golden_record)
    @pytest.mark.parametrize("fault", ["another temperature", "one expert of sixteen lost"])
    def test_an_upgrade_that_costs_accuracy(self, world: World, fault: str) -> None:
        now, golden = account_of(Stub(**WRONG[fault])), self.golden(Stub())
        floor = Floor(world.deployment.precision)
        with pytest.raises(JudgementFailed, match="golden_"):
            agreement_checks.test_log_probabilities_agree_with_the_golden_record(
                world.deployment, now, golden, floor, world.run, world.judge
            )

    @broken(decode.test_greedy_tokens_are_those_of_the_golden_record)
    def test_decode_kernels_that_changed(self, world: World) -> None:
        golden, now = self.golden(Stub()), account_of(Stub(decoded=noisy(sigma=1.5)))
        with pytest.raises(JudgementFailed, match="greedy_split_gap"):
            decode.test_greedy_tokens_are_those_of_the_golden_record(
                now, golden, Floor(world.deployment.precision), world.judge
            )


class TestDecode:
    """test_decoding_says_what_prefill_says."""

    def compare(self, world: World, stub: Stub) -> None:
        decode.test_decoding_says_what_prefill_says(
            world.server(),
            world.deployment,
            stub.client(),
            account_of(stub),
            Floor(world.deployment.precision),
            world.run,
            world.judge,
        )

    @healthy(decode.test_decoding_says_what_prefill_says)
    def test_two_kernels_of_one_mind(self, world: World) -> None:
        self.compare(world, Stub(wrong=BF16, decoded=noisy(seed=4)))
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(decode.test_decoding_says_what_prefill_says)
    @pytest.mark.parametrize("decoded", [EXPERT, scaled(0.6)], ids=["expert", "temperature"])
    def test_a_decode_kernel_that_is_wrong(self, world: World, decoded: Any) -> None:
        with pytest.raises(JudgementFailed, match="decode_"):
            self.compare(world, Stub(decoded=decoded))
