"""How a correctness test says what a comparison found: every quantity, then the first that fell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acceptance.correctness.floor import QUANTITIES, Floor, own_limit, quantity, rules
from acceptance.judging.judgement import Measurement
from acceptance.judging.references import find
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.correctness.compare import Agreement
    from acceptance.deployments.schema import Deployment, Precision
    from acceptance.judging.judgement import Limit
    from fixtures.judging import Judge
    from fixtures.run import Run

NAMES = {
    "mean": "logprob_abs_diff_mean",
    "kl": "kl_divergence",
    "disagreement": "top1_disagreement",
    "dnll": "nll_loss_upper",
}
# Of greedy tokens that the server wrote itself: another best token there is a near tie, and with a
# few hundred positions its share says little.
WRITTEN = ("mean", "kl", "dnll")
UNJUDGED = "logprob_abs_diff_p999"


def agree(
    judge: Judge,
    name: str,
    found: Agreement,
    limit_of: Callable[[str, str], Limit],
    quantities: tuple[str, ...] = QUANTITIES,
    **evidence: Any,
) -> None:
    """Judges an agreement. limit_of: quantity and metric to the limit. The largest differences are
    shown and not judged: near-tied experts flip, and make rare large jumps."""
    told = {**evidence, **found.evidence}
    failed: JudgementFailed | None = None
    for what in quantities:
        metric = f"{name}_{NAMES[what]}"
        unit = rules()["quantity"][what]["unit"]
        value = Measurement(name=metric, value=quantity(what, found), unit=unit, evidence=told)
        try:
            judge(value, limit=limit_of(what, metric), **evidence)
        except JudgementFailed as error:
            failed = failed or error
    judge(
        Measurement(name=f"{name}_{UNJUDGED}", value=found.p999, unit="nats", evidence=told),
        required=False,
        **evidence,
    )
    if failed is not None:
        raise failed


def between(
    floor: Floor, run: Run, deployment: Deployment, *, factor: float = 1.0
) -> Callable[[str, str], Limit]:
    """Limits between two servers, from the noise floor; a reference of the metric is the cap."""

    def limit_of(what: str, metric: str) -> Limit:
        given = find(
            run.references,
            deployment.name,
            metric,
            lane=str(deployment.lane),
            precision=str(deployment.precision),
            layout=deployment.layout.label,
            profile=str(run.profile),
        )
        most = given.limit().upper if given else None
        return floor.limit(what, most=most, factor=factor)

    return limit_of


def against_itself(precision: Precision) -> Callable[[str, str], Limit]:
    """Limits of one server against itself."""
    return lambda what, metric: own_limit(what, precision)
