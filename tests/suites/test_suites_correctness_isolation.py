"""The checks of isolation, the prefix cache and repetition: a server that keeps requests apart, and
servers that do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from proofs import broken, healthy
from stub_model import BF16, PAGE, Stub, noisy
from suites_world import World, deployment, plain
from test_suites_correctness import PROMPTS, SHAPE, held

import suites.correctness.conftest as shared
import suites.correctness.test_cache as cache
import suites.correctness.test_isolation as isolation
import suites.correctness.test_late as late
import suites.correctness.test_repeats as repeats
from acceptance.correctness.account import Account
from acceptance.correctness.crowd import pressure
from acceptance.correctness.floor import Floor
from acceptance.correctness.prompts import tagged
from acceptance.correctness.scoring import greedy, score
from acceptance.correctness.strata import Shape
from acceptance.judging.judgement import Outcome
from fixtures.judging import OptionalSkip
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment

SMALL = Shape(page=16, chunk=2048, length=400)


def config(stub: Stub) -> Any:
    engine = SimpleNamespace(kv_tokens=stub.kv_tokens, prefix_caching=stub.caching)
    return SimpleNamespace(engines={str(n): engine for n in range(stub.engines)})


def floor(of: Deployment) -> Floor:
    return Floor(of.precision)


class TestNonces:
    """test_nobody_gets_another_ones_nonce."""

    @pytest.fixture
    def echo(self, world: World) -> Any:
        """The check, on a server that answers each nonce as `answer` says."""
        world.deployment = deployment("fp8-8xh200-tp-ep", scale={"batch": 0.05})
        nonces = [task.answer for task in tagged(13)]

        def asking(answer: Any, **stub: Any) -> None:
            def chats(prompt: str) -> dict[str, Any]:
                own = next(nonce for nonce in nonces if nonce in prompt)
                return {"content": answer(own, nonces.index(own), nonces)}

            isolation.test_nobody_gets_another_ones_nonce(
                world.server(),
                world.deployment,
                Stub(chats=chats, **stub).client(),
                world.judge,
            )

        return asking

    @healthy(isolation.test_nobody_gets_another_ones_nonce)
    @pytest.mark.parametrize("slips", [0, 1])
    def test_each_its_own(self, world: World, echo: Any, slips: int) -> None:
        echo(lambda own, place, _: own if place >= slips else own[:-1])
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(isolation.test_nobody_gets_another_ones_nonce)
    def test_cross_talk(self, world: World, echo: Any) -> None:
        with pytest.raises(JudgementFailed, match="answers_with_anothers_nonce"):
            echo(lambda own, place, all_of: all_of[1] if place == 0 else own)

    @broken(isolation.test_nobody_gets_another_ones_nonce)
    def test_nobody_is_echoed(self, echo: Any) -> None:
        with pytest.raises(JudgementFailed, match="nonces_echoed"):
            echo(lambda *_: "Paris")

    @broken(isolation.test_nobody_gets_another_ones_nonce)
    def test_one_id_for_all(self, echo: Any) -> None:
        with pytest.raises(JudgementFailed, match="different_request_ids"):
            echo(lambda own, *_: own, edit=lambda said: {**said, "id": "the same"})

    def test_weights_that_learned_nothing_echo_nothing(self, world: World) -> None:
        world.deployment = deployment("simulated-fp8-8xh200-tp-ep")
        with pytest.raises(OptionalSkip):
            isolation.test_nobody_gets_another_ones_nonce(
                world.server(), world.deployment, Stub().client(), world.judge
            )


class TestCrowds:
    """The checks that score alone what was written among others."""

    def run(self, world: World, stub: Stub, check: Any, **more: Any) -> None:
        world.deployment = deployment("simulated-fp8-8xh200-tp-ep", scale={"batch": 0.1})
        of = world.deployment
        check(
            server=world.server(),
            deployment=of,
            bulk=stub.client(),
            prompts=PROMPTS,
            floor=floor(of),
            run=world.run,
            judge=world.judge,
            **more,
        )

    def pressed(self, world: World, stub: Stub) -> None:
        self.run(
            world,
            stub,
            isolation.test_preemption_changes_nobodys_tokens,
            config=config(stub),
            shape=SMALL,
        )

    @healthy(
        isolation.test_a_crowd_changes_nobodys_tokens,
        isolation.test_those_who_leave_change_nobodys_tokens,
    )
    @pytest.mark.parametrize("name", ["a_crowd_changes", "those_who_leave_change"])
    def test_kept_apart(self, world: World, name: str) -> None:
        check = getattr(isolation, f"test_{name}_nobodys_tokens")
        self.run(world, Stub(wrong=BF16, decoded=noisy(seed=2)), check)
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(
        isolation.test_a_crowd_changes_nobodys_tokens,
        isolation.test_those_who_leave_change_nobodys_tokens,
    )
    @pytest.mark.parametrize("name", ["a_crowd_changes", "those_who_leave_change"])
    def test_every_fourth_is_given_anothers(self, world: World, name: str) -> None:
        check = getattr(isolation, f"test_{name}_nobodys_tokens")
        with pytest.raises(JudgementFailed, match="logprob_abs_diff_mean"):
            self.run(world, Stub(crossed=4), check)

    def alike(self, world: World, stub: Stub) -> None:
        check = isolation.test_prompts_that_begin_alike_are_kept_apart
        self.run(world, stub, check, shape=SHAPE)
        asked = [tuple(prompt[: 4 * PAGE]) for prompt in stub.said]
        assert len(set(asked)) == 1 < len(asked)

    @healthy(isolation.test_prompts_that_begin_alike_are_kept_apart)
    def test_alike_and_kept_apart(self, world: World) -> None:
        self.alike(world, Stub(wrong=BF16, decoded=noisy(seed=2)))
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(isolation.test_prompts_that_begin_alike_are_kept_apart)
    def test_alike_and_taken_for_one(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="alike_logprob_abs_diff_mean"):
            self.alike(world, Stub(begins=2 * PAGE))

    @healthy(isolation.test_preemption_changes_nobodys_tokens)
    def test_preempted_and_whole(self, world: World) -> None:
        self.pressed(world, Stub(wrong=BF16, preempts=1, kv_tokens=1000))
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(isolation.test_preemption_changes_nobodys_tokens)
    def test_preempted_and_mixed_up(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="preempted_logprob"):
            self.pressed(world, Stub(preempts=1, kv_tokens=1000, crossed=4))

    @broken(isolation.test_preemption_changes_nobodys_tokens)
    def test_nobody_was_preempted(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="no request was preempted"):
            self.pressed(world, Stub(kv_tokens=1000))
        assert world.outcomes["preemptions"] is Outcome.INVALID

    @pytest.mark.parametrize(("tokens", "why"), [(900_000, "do not fill"), (60_000, "affords")])
    def test_a_cache_that_takes_too_long_to_fill(self, world: World, tokens: int, why: str) -> None:
        with pytest.raises(OptionalSkip, match=why):
            self.pressed(world, Stub(kv_tokens=tokens))

    def test_pressure_admits_all_and_holds_too_few(self) -> None:
        plan = pressure(61_440, 1, 65_536, 256)
        assert plan is not None
        assert plan.count * plan.prompt < 61_440 < plan.tokens
        assert plan.prompt + plan.output <= 65_536
        assert pressure(10**9, 1, 2048, 256) is None
        for kv_tokens in range(2048, 40_000, 512):
            full = pressure(kv_tokens, 1, 2048, 256)
            assert full is None or full.prompt + full.output < 2048, "it is scored as a prompt"


class TestCache:
    """suites/correctness/test_cache.py."""

    @pytest.fixture(autouse=True)
    def serving(self, world: World) -> None:
        world.deployment = deployment("fp8-8xh200-tp-ep")

    @staticmethod
    def prompts(stub: Stub) -> dict[str, list[int]]:
        made: dict[str, list[int]] = plain(cache.cached)(
            config=config(stub), shape=SHAPE, prompts=PROMPTS
        )
        assert all(len(tokens) > 4 * PAGE for tokens in made.values())
        return made

    def warm(self, world: World, stub: Stub, prompts: dict[str, list[int]] | None = None) -> None:
        cache.test_a_warm_cache_says_what_a_cold_one_did(
            world.server(),
            world.deployment,
            stub.client(),
            prompts or self.prompts(stub),
            floor(world.deployment),
            world.run,
            world.judge,
        )

    def salt(self, world: World, stub: Stub) -> None:
        cache.test_a_salt_keeps_caches_apart(
            world.server(), world.deployment, stub.client(), self.prompts(stub), world.judge
        )

    @healthy(cache.test_a_warm_cache_says_what_a_cold_one_did, cache.test_a_salt_keeps_caches_apart)
    def test_cold_and_warm_alike(self, world: World) -> None:
        self.warm(world, Stub(caching=True))
        self.salt(world, Stub(caching=True))
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(cache.test_a_warm_cache_says_what_a_cold_one_did)
    def test_a_stale_prefix(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="cache_same_first_token"):
            self.warm(world, Stub(caching=True, stale=True))

    @broken(cache.test_a_warm_cache_says_what_a_cold_one_did)
    def test_nothing_is_found_in_it(self, world: World) -> None:
        stub = Stub(caching=True)
        prompts = self.prompts(stub)
        stub.caching = False
        with pytest.raises(JudgementFailed, match="prefix_cache_hits"):
            self.warm(world, stub, prompts)

    @broken(cache.test_a_salt_keeps_caches_apart)
    def test_a_salt_that_nobody_reads(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="hits_under_another_salt"):
            self.salt(world, Stub(caching=True, salted=False))

    def test_no_cache_has_nothing_to_be_warm(self) -> None:
        with pytest.raises(OptionalSkip, match="no prefix cache"):
            self.prompts(Stub())


class TestRepeats:
    """suites/correctness/test_repeats.py."""

    @healthy(
        repeats.test_one_seed_says_one_thing,
        repeats.test_greedy_repeats_ten_times,
        repeats.test_a_seed_repeats_under_load,
    )
    def test_a_server_that_repeats(self, world: World) -> None:
        http = Stub().client()
        repeats.test_one_seed_says_one_thing(world.server(), http, world.record_check)
        repeats.test_greedy_repeats_ten_times(world.server(), http, world.judge)
        repeats.test_a_seed_repeats_under_load(world.server(), http, world.judge)
        assert world.judged["seed_repeats_under_load"].measurement.value == 1
        assert held(world) == {"different_greedy_answers": Outcome.PASS}

    @broken(
        repeats.test_one_seed_says_one_thing,
        repeats.test_greedy_repeats_ten_times,
        repeats.test_a_seed_repeats_under_load,
    )
    def test_a_server_that_drifts(self, world: World) -> None:
        http = Stub(drift=True).client()
        with pytest.raises(AssertionError, match="one seed said two things"):
            repeats.test_one_seed_says_one_thing(world.server(), http, world.record_check)
        with pytest.raises(JudgementFailed, match="different_greedy_answers"):
            repeats.test_greedy_repeats_ten_times(world.server(), http, world.judge)
        repeats.test_a_seed_repeats_under_load(world.server(), http, world.judge)
        assert world.judged["seed_repeats_under_load"].measurement.value == 0

    @broken(repeats.test_one_seed_says_one_thing)
    def test_a_seed_that_is_dropped(self, world: World) -> None:
        def without(said: dict[str, Any]) -> dict[str, Any]:
            for entry in said["choices"][0]["logprobs"]["content"]:
                entry["token"] = "token_id:7"
            return said

        with pytest.raises(AssertionError, match="four seeds said one thing"):
            repeats.test_one_seed_says_one_thing(
                world.server(), Stub(edit=without).client(), world.record_check
            )


class TestLate:
    """suites/correctness/test_late.py."""

    @staticmethod
    def before(stub: Stub) -> Account:
        short = {name: tokens[:24] for name, tokens in PROMPTS.items()}
        http = stub.client()
        return Account(score(http, "m", PROMPTS), greedy(http, "m", short, 12))

    def after(self, world: World, before: Stub, now: Stub) -> None:
        account = self.before(before)
        late.test_tokens_are_the_same_after_the_matrix(
            world.server(),
            now.client(),
            account.scored,
            account,
            PROMPTS,
            floor(world.deployment),
            world.judge,
        )

    @healthy(late.test_tokens_are_the_same_after_the_matrix)
    def test_load_changed_nothing(self, world: World) -> None:
        self.after(world, Stub(wrong=BF16), Stub(wrong=noisy(seed=2)))
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(late.test_tokens_are_the_same_after_the_matrix)
    def test_experts_were_moved_and_lost(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="after_"):
            self.after(world, Stub(), Stub(wrong=noisy(sigma=0.4, flips=0.3)))

    @pytest.fixture
    def eager(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The check, whose second server is a stub."""
        world.deployment = deployment("fp8-8xh200-tp-ep")

        def checking(graphs: Stub, other: Stub, tier: str = "full", **known: Any) -> None:
            ended = SimpleNamespace(end=lambda _: None)
            account = self.before(graphs)

            def start(of: Deployment, *_: Any, suffix: str) -> Any:
                assert of.options.enforce_eager
                assert suffix == ".eager"
                return SimpleNamespace(
                    custody=ended, model="m", base_url="http://other.test", api_key=""
                )

            monkeypatch.setattr(late, "start_server", start)
            http = other.client()
            monkeypatch.setattr(late, "client", lambda *_: http)
            late.test_eager_chooses_as_graphs_do(
                world.server(**{"ended": ended, **known}),
                world.deployment,
                account,
                PROMPTS,
                floor(world.deployment),
                world.run,
                world.judge,
                SimpleNamespace(option=SimpleNamespace(tier=tier)),  # type: ignore[arg-type]
            )

        return checking

    @healthy(late.test_eager_chooses_as_graphs_do)
    def test_graphs_change_nothing(self, world: World, eager: Any) -> None:
        eager(Stub(wrong=BF16), Stub(wrong=noisy(seed=2)))
        assert set(held(world).values()) == {Outcome.PASS}

    @broken(late.test_eager_chooses_as_graphs_do)
    def test_graphs_that_are_wrong(self, eager: Any) -> None:
        with pytest.raises(JudgementFailed, match="eager_"):
            eager(Stub(wrong=noisy(sigma=0.4, flips=0.3)), Stub())

    def test_when_there_is_nothing_to_compare(self, world: World, eager: Any) -> None:
        with pytest.raises(OptionalSkip, match="--tier full"):
            eager(Stub(), Stub(), tier="gate")
        with pytest.raises(pytest.skip.Exception, match="eager is not observable"):
            eager(Stub(), Stub(), ended=None)
        world.deployment = deployment("rehearsal-tp-ep")
        with pytest.raises(OptionalSkip, match="serves eagerly"):
            eager(Stub(), Stub())


def test_page_and_length_come_from_the_server(world: World) -> None:
    stub = Stub()
    live = SimpleNamespace(
        models=(SimpleNamespace(id=world.deployment.model, max_model_len=777),), engines={}
    )
    shape = plain(shared.shape)(server=world.server(), bulk=stub.client(), config=live)
    assert shape == Shape(page=PAGE, chunk=2048, length=777)
