"""Does it still know what its makers say it knows: benchmarks through lm-eval.

Log-probabilities can agree with themselves and be wrong together; a score cannot.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from acceptance.correctness.benchmarks import Benchmark, benchmark
from acceptance.correctness.gate import Finding, gate, paired
from acceptance.correctness.lmeval import (
    Answer,
    NoData,
    data_files,
    evaluate,
    job_of,
    lm_eval_version,
)
from acceptance.correctness.questions import write_own_questions
from acceptance.judging.judgement import Broken, Kind, Limit, Measurement
from fixtures.correctness import folder_of
from fixtures.judging import not_applicable, unobservable
from fixtures.selection import SELECTION

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.correctness.strata import Shape
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run

DEFAULT = "gsm8k"
OWN = "rehearsal"
LONGEST = 6 * 3600.0  # seconds: 12032 questions of MMLU-Pro
NOT_HERE = "pip install 'deepseek-vllm-acceptance[accuracy]'"
Answers = dict[str, list[Answer]]


@pytest.fixture(scope="session")
def answers(
    server: Server, deployment: Deployment, shape: Shape, run: Run, pytestconfig: pytest.Config
) -> Answers:
    """What the server answered to every question of the benchmarks, by benchmark."""
    if not deployment.trained:
        not_applicable("the weights learned nothing, so no question has a right answer")
    if not lm_eval_version():
        unobservable("accuracy", f"lm-eval is not installed: {NOT_HERE}", None)
    option, folder = pytestconfig.option, folder_of(run.run_dir)
    made: Answers = {}
    for name in option.accuracy or [OWN if deployment.model_is_generated else DEFAULT]:
        asked = benchmark(name)
        where = write_own_questions(folder, asked) if name == OWN else option.accuracy_data
        try:
            job = job_of(
                server,
                asked,
                limit=asked.asked(option.tier),
                longest=shape.length,
                data=data_files(where, asked),
            )
            made[name] = evaluate(job, server.api_key, folder / deployment.name, timeout=LONGEST)
        except NoData as error:
            unobservable("accuracy", f"{error.happened} (--accuracy-data DIR)")
        kept = {answer.question: answer.right for answer in made[name]}
        _path(folder, deployment.name, name).write_text(json.dumps(kept))
    return made


def _path(folder: Path, deployment: str, name: str) -> Path:
    return folder / f"{deployment}.{name}.answers.json"


def test_accuracy_holds_its_reference(
    deployment: Deployment, answers: Answers, judge: Judge, pytestconfig: pytest.Config
) -> None:
    """The share of right answers is shown to be no lower than the bar below its reference.

    What so many questions cannot tell is inconclusive, and no pass. A truncated answer is wrong.
    Does not prove other subjects. Would have caught vllm#23282 (R1-0528 under DP+EP: GSM8K 0.005),
    vllm#31918 (0.04) and vllm PR 28377 (0 with EPLB), with every metric looking normal.
    """
    for name, given in answers.items():
        asked = benchmark(name)
        _judge_share(judge, asked, deployment, given, asked.asked(pytestconfig.option.tier))


def _judge_share(
    judge: Judge, asked: Benchmark, deployment: Deployment, given: list[Answer], wanted: int
) -> None:
    right = sum(answer.right for answer in given)
    cut = sum(answer.truncated for answer in given)
    unread = sum(not answer.extracted and not answer.truncated for answer in given)
    evidence = {
        "questions": len(given),
        "right": right,
        "lm_eval": lm_eval_version(),
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "wrong": [answer.text[-80:] for answer in given if not answer.right][:5],
    }
    broken, limit = [], None
    if len(given) != wanted:
        told = f"{len(given)} of {wanted} questions were answered"
        broken.append(Broken(rule="every-question-answered", evidence=told))
    reference = asked.score_of(deployment.model)
    if reference is not None and given:
        fixed = gate(len(given), reference.score, reference.margin)
        limit = Limit(
            kind=Kind.FLOOR,
            lower=fixed.pass_at / fixed.n,
            unit="ratio",
            source=f"{reference.source}; {fixed.told}",
        )
        if fixed.finding(right) is Finding.INCONCLUSIVE:
            told = f"{right} right of {fixed.n} is neither enough nor too few: {fixed.told}"
            broken.append(Broken(rule="conclusive", evidence=told))
    share = right / len(given) if given else None
    for name, count in (("truncated", cut), ("unreadable", unread)):
        judge(
            Measurement(name=f"accuracy_{asked.name}_{name}", value=count, unit="count"),
            required=False,
        )
    judge(
        Measurement(
            name=f"accuracy_{asked.name}",
            value=share,
            unit="ratio",
            evidence=evidence,
            broken=tuple(broken),
        ),
        limit=limit,
    )


def test_the_same_questions_are_answered_as_well_elsewhere(
    deployment: Deployment,
    answers: Answers,
    run: Run,
    pytestconfig: pytest.Config,
    judge: Judge,
) -> None:
    """Paired by question, another layout or precision answers no worse by more than the margin.

    Only questions that one alone answered right say anything (McNemar). Does not prove either good.
    Would have caught vllm#31918 (accuracy of one all2all backend) at a fifth of the questions that
    two separate scores take.
    """
    folder = folder_of(run.run_dir)
    others = [d.name for d in pytestconfig.stash[SELECTION].chosen if d.name != deployment.name]
    paths = {(o, n): _path(folder, o, n) for n in answers for o in others}
    if (against := pytestconfig.option.accuracy_against) is not None:
        for path in sorted((against / folder.name).glob("*.answers.json")):
            other, name = path.name.removesuffix(".answers.json").rsplit(".", 1)
            paths |= {(f"{other} of {against.name}", name): path}
    judged = 0
    for (other, name), path in paths.items():
        if name not in answers or not path.exists():
            continue
        before = json.loads(path.read_text())
        after = {answer.question: answer.right for answer in answers[name]}
        found = paired(before, after)
        margin = benchmark(name).paired_margin
        said = found.finding(margin)
        told = f"{found.only_before} answered right there alone, {found.only_after} here alone"
        judge(
            Measurement(
                name=f"accuracy_{name}_paired",
                value=found.lower,
                unit="ratio",
                evidence={"against": other, "n": found.n, "mcnemar": found.mcnemar, "told": told},
                broken=(Broken(rule="conclusive", evidence=told),)
                if said is Finding.INCONCLUSIVE
                else (),
            ),
            limit=Limit(
                kind=Kind.FLOOR,
                lower=-margin,
                unit="ratio",
                source="acceptance/correctness/accuracy.toml: paired_margin; lower end of the "
                "one-sided 95 % interval of the difference",
            ),
            against=other,
        )
        judged += 1
    if not judged:
        not_applicable("no other deployment has answered the same questions before this one")
