"""The scheduler in virtual time: nothing here looks at a clock."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.simulation.engine import Job, Limits, Scheduler
from acceptance.simulation.faults import Faults
from acceptance.simulation.latency import EngineLoad, Machine, constants

TP = Machine("H200", "fp8", 8, 1)
DP = Machine("H200", "fp8", 1, 8)
LIMITS = Limits(seqs=1024, batched_tokens=8192, kv_tokens=600_000)
QUIET = Faults(noise=0)


def ignore(number: int, at: float) -> None:
    pass


def play(scheduler: Scheduler, jobs: list[Job]) -> list[Job]:
    """Runs jobs to their ends."""
    for job in jobs:
        scheduler.submit(job)
    now = 0.0
    while (step := scheduler.plan(now)) is not None:
        assert step.end > step.start >= now
        list(scheduler.apply(step))
        now = step.end
    return jobs


def burst(
    count: int,
    prompt: int = 1000,
    output: int = 100,
    faults: Faults = QUIET,
    machine: Machine = TP,
    limits: Limits = LIMITS,
    length: float = 1.0,
    time: float = 1.0,
) -> list[Job]:
    scheduler = Scheduler(machine, limits, faults, length, time, 0)
    return play(scheduler, [Job(prompt, output, 0.0, ignore) for _ in range(count)])


def tpot(job: Job) -> float:
    return (job.times[-1] - job.times[0]) / (len(job.times) - 1)


def test_one_stream_takes_what_the_model_says() -> None:
    [job] = burst(1)
    overhead = constants()["server"]["decode_overhead"]
    prefill = TP.prefill_seconds([EngineLoad(prefill=1000, squares=1000.0**2)])
    assert job.times[0] == pytest.approx(prefill + overhead)
    steps = [TP.decode_seconds([EngineLoad(1, 1000.0 + n)]) for n in range(99)]
    assert tpot(job) == pytest.approx(statistics.fmean(steps))


def test_thirty_two_streams_decode_at_the_speed_of_their_batch() -> None:
    jobs = burst(32, prompt=10, output=200)
    steps = [TP.decode_seconds([EngineLoad(32, 32 * (10.0 + n))]) for n in range(199)]
    for job in jobs:
        assert tpot(job) == pytest.approx(statistics.fmean(steps), rel=0.001)


def test_prompts_of_a_burst_wait_for_each_other() -> None:
    jobs = burst(16, prompt=8000, output=50)
    firsts = [job.times[0] for job in jobs]
    assert firsts == sorted(firsts)
    alone = burst(1, prompt=8000, output=50)[0].times[0]
    assert firsts[-1] > 10 * alone


@pytest.mark.parametrize("count", [1, 32])
def test_factors_are_exact(count: int) -> None:
    def numbers(faults: Faults) -> tuple[float, float]:
        jobs = burst(count, faults=faults)
        return jobs[-1].times[0], max(job.times[-1] for job in jobs)

    first, end = numbers(QUIET)
    assert numbers(Faults(noise=0, step=1.2)) == pytest.approx((1.2 * first, 1.2 * end))
    slow_first, _ = numbers(Faults(noise=0, prefill=1.2))
    assert first < slow_first < 1.2 * first
    later_first, slow_end = numbers(Faults(noise=0, decode=1.2))
    # Prompts of a burst wait while those before them decode; a single one does not.
    assert later_first == pytest.approx(first, rel=0.05)
    assert end < slow_end < 1.2 * end


def test_time_scale_stretches_everything() -> None:
    once, twice = burst(8), burst(8, time=2)
    assert [job.times for job in twice] == [
        pytest.approx([2 * at for at in job.times]) for job in once
    ]


def test_scaled_requests_show_the_speed_of_whole_ones() -> None:
    whole, scaled = burst(16, 1000, 1000), burst(16, 10, 10, length=0.01)
    assert tpot(scaled[0]) == pytest.approx(tpot(whole[0]), rel=0.1)


def test_slow_from_a_batch_on() -> None:
    faults = Faults(noise=0, decode=1.5, from_batch=16)
    assert tpot(burst(8, faults=faults)[0]) == pytest.approx(tpot(burst(8)[0]))
    assert tpot(burst(16, faults=faults)[0]) > 1.3 * tpot(burst(16)[0])


def test_noise_is_declared_and_seeded() -> None:
    noisy = Faults(noise=0.1, seed=5)
    [once], [again] = burst(1, faults=noisy), burst(1, faults=noisy)
    assert once.times == again.times
    [other] = burst(1, faults=Faults(noise=0.1, seed=6))
    assert once.times != other.times
    gaps = [b - a for a, b in zip(once.times, once.times[1:], strict=False)]
    spread = statistics.stdev(gaps) / statistics.fmean(gaps)
    assert spread == pytest.approx(0.1, rel=0.3)


def test_a_full_cache_preempts_and_loses_nothing() -> None:
    small = Limits(seqs=1024, batched_tokens=8192, kv_tokens=2000)
    scheduler = Scheduler(TP, small, QUIET)
    jobs = play(scheduler, [Job(100, 200, 0.0, ignore) for _ in range(16)])
    assert scheduler.engines[0].preemptions > 0
    assert all(job.produced == 200 and job.times == sorted(job.times) for job in jobs)
    assert scheduler.engines[0].used == 0


def test_one_request_larger_than_the_cache_still_runs() -> None:
    tiny = Limits(seqs=8, batched_tokens=64, kv_tokens=50)
    [job] = burst(1, prompt=200, output=5, limits=tiny)
    assert job.produced == 5


def test_engines_share_the_work_unless_one_is_starved() -> None:
    assert {job.engine for job in burst(16, machine=DP)} == set(range(8))
    starved = Faults(noise=0, starved_engine=1)
    assert {job.engine for job in burst(16, machine=DP, faults=starved)} == set(range(8)) - {1}
    assert {job.engine for job in burst(4, machine=TP, faults=Faults(starved_engine=0))} == {0}


def test_a_cached_prompt_comes_sooner() -> None:
    scheduler = Scheduler(TP, LIMITS, QUIET)
    [warm] = play(scheduler, [Job(8000, 4, 0.0, ignore, cached=6400)])
    [cold] = burst(1, 8000, 4)
    assert warm.times[0] < cold.times[0] / 2


def test_one_front_end_takes_requests_in_turn() -> None:
    each = constants()["server"]["front_end"]
    scheduler = Scheduler(TP, LIMITS, QUIET, time_scale=2)
    jobs = [Job(10, 5, 0.0, ignore), Job(10, 5, 0.0, ignore), Job(10, 5, 7.0, ignore)]
    play(scheduler, jobs)
    assert [job.ready for job in jobs] == [2 * each, 4 * each, 7 + 2 * each]
    assert all(job.times[0] > job.ready for job in jobs)


def test_the_front_end_began_with_the_first_that_came_whichever_was_read_first() -> None:
    each = constants()["server"]["front_end"]
    scheduler = Scheduler(TP, LIMITS, QUIET)
    jobs = [Job(10, 5, at, ignore) for at in (0.003, 0.001, 0.002)]
    for job in jobs:
        scheduler.submit(job)
    assert jobs[-1].ready == pytest.approx(0.001 + 3 * each)
    assert scheduler.earliest(0.0) == pytest.approx(0.001 + 4 * each)
    assert [job.missed for job in jobs] == [0, 0, 0]


def test_a_request_that_is_read_too_late_for_its_step_tells() -> None:
    scheduler = Scheduler(TP, LIMITS, QUIET, front_end=0)
    scheduler.submit(Job(10, 50, 1.0, ignore))
    scheduler.plan(1.5)
    late = Job(10, 5, 1.2, ignore)
    scheduler.submit(late)
    assert late.missed == pytest.approx(0.3)


def test_late_arrivals_join_at_the_next_step() -> None:
    scheduler = Scheduler(TP, LIMITS, QUIET)
    early, late = Job(100, 50, 0.0, ignore), Job(100, 50, 0.1, ignore)
    play(scheduler, [early, late])
    before = max(at for at in early.times if at <= late.times[0] - 1e-9)
    assert late.times[0] > 0.1
    assert before >= 0.1  # the step that serves it began after it came


def test_an_aborted_job_gets_no_more() -> None:
    scheduler = Scheduler(TP, LIMITS, QUIET, front_end=0)
    jobs = [Job(100, 50, 0.0, ignore) for _ in range(3)]
    for job in jobs:
        scheduler.submit(job)
    step = scheduler.plan(0.0)
    assert step is not None
    scheduler.drop(jobs[1])
    list(scheduler.apply(step))
    assert [job.produced for job in jobs] == [1, 0, 1]


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40), st.floats(0, 2)), max_size=30),
    st.sampled_from([TP, DP]),
    st.integers(50, 5000),
    st.integers(1, 8),
    st.integers(1, 500),
)
def test_everybody_is_served_in_order(
    wanted: list[tuple[int, int, float]], machine: Machine, kv: int, seqs: int, budget: int
) -> None:
    limits = Limits(seqs=seqs, batched_tokens=budget, kv_tokens=kv)
    wanted.sort(key=lambda one: one[2])  # as requests come
    jobs = [Job(prompt, output, at, ignore) for prompt, output, at in wanted]
    play(Scheduler(machine, limits, QUIET), jobs)
    for job in jobs:
        assert len(job.times) == job.output
        assert job.times == sorted(job.times)
        assert job.times[0] > job.arrived
