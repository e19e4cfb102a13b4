"""The GPUs themselves: fit before the server started, untouched while it served, free after it.

What NVML does not answer is listed and keeps no verdict, unless the deployment file asks for it by
name (health.observe): a virtual machine cannot tell its NVLinks, and is no worse for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from acceptance.gpus.health import BEFORE, DURING
from acceptance.gpus.kv import GIB
from acceptance.gpus.probe import Unobservable
from acceptance.gpus.telemetry import Span
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.serving.shutdown import end_idle
from fixtures.judging import not_applicable, unobservable

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from acceptance.gpus.health import Finding
    from acceptance.serving.server import Server
    from fixtures.gpuwatch import GpuWatch
    from fixtures.judging import Judge, RecordCheck

BACK_WITHIN = 30.0  # seconds
BLAMED = {"xid": "", "others": "host: "}  # an Xid says itself whose it is; the rest is hardware
KEPT = 0.25  # GiB beyond the level before that count as back


@pytest.mark.parametrize("check", BEFORE)
def test_gpus_are_fit(
    check: str, deployment: Deployment, gpu_watch: GpuWatch, record_check: RecordCheck
) -> None:
    """Before anything was started, each leased GPU was as it should be.

    Does not prove that it stays so, nor that it computes right (`dcgmi diag` does). Would have
    caught a row remapping that waits for a reset, and a board that was capped to less power.
    """
    found = gpu_watch.before[check]
    if not found:
        lone = "one GPU has no peers" if check != "driver" else "no driver floor is declared"
        not_applicable(lone)
    settle(check, found, deployment, record_check)


@pytest.mark.parametrize("check", DURING)
def test_nothing_happened_to_the_gpus(
    check: str, deployment: Deployment, after_load: GpuWatch, record_check: RecordCheck
) -> None:
    """Since before the launch, no GPU reported a fault of its own, and nobody else came to one.

    Does not prove that none went unreported, nor, in a container, that nobody came while the server
    started. Would have caught wtdcode/vllm-backport#62, where Xids of bad memory read as hangs of
    vLLM, and TensorRT-LLM PR#17326, where workers of other runs took the memory that a test ran out
    of. The software power cap is recorded and is no fault.
    """
    found = after_load.happened(Span(after_load.began, time.time()))
    settle(check, found[check], deployment, record_check)


def test_power_cap_is_shown(after_load: GpuWatch, judge: Judge) -> None:
    """How much of the time the software power cap held the clocks down; never a verdict.

    At full load it is normal. Does not prove that the limit is the board's (see power_limit).
    """
    telemetry = after_load.telemetry()
    for uuid, name in after_load.names.items():
        share = telemetry.capped(uuid, after_load.serving)
        unseen = isinstance(share, Unobservable)
        judge(
            Measurement(
                name="power_capped_share",
                value=None if isinstance(share, Unobservable) else round(share, 3),
                unit="ratio",
                evidence={"gpu": name} | ({"unobservable": str(share)} if unseen else {}),
            ),
            required=False,
        )


def test_memory_comes_back(
    server: Server, deployment: Deployment, after_end: GpuWatch, judge: Judge
) -> None:
    """Once the server has ended, each GPU's memory is back at the level before it.

    Runs last and ends the server if nothing did before. Where somebody else came it is INVALID.
    Does not prove that the next start finds the GPU fit. Would have caught vllm#55510 (engines that
    outlive their API server and keep 128 GB); a GPU that stays taken is not leased again either.
    """
    if server.ended is None:
        end_idle(server)
    began = time.time()
    answers = after_end.returned(BACK_WITHIN)
    shared = after_end.shared(Span(began, time.time()), certain=True)
    source = f"{__name__}: within {BACK_WITHIN:g} s"
    for uuid, answer in answers.items():
        seconds, kept = (None, None) if isinstance(answer, Unobservable) else answer
        why = {"unobservable": str(answer)} if isinstance(answer, Unobservable) else {}
        judge(
            Measurement(
                name="memory_kept_gib",
                value=None if kept is None else round(kept / GIB, 3),
                unit="GiB",
                evidence={"gpu": after_end.names[uuid], "seconds": seconds} | why,
                broken=shared,
            ),
            limit=Limit(kind=Kind.CEILING, upper=KEPT, unit="GiB", source=source),
        )


def settle(
    check: str, found: list[Finding], deployment: Deployment, record_check: RecordCheck
) -> None:
    """Passes, fails naming the GPUs, or tells what could not be observed."""
    record_check(
        "; ".join(dict.fromkeys(finding.expected for finding in found)),
        "; ".join(f"{finding.gpu or 'host'}: {finding.seen}" for finding in found),
    )
    broken = [str(finding) for finding in found if finding.holds is False]
    assert not broken, f"{BLAMED.get(check, 'hardware: ')}{'; '.join(broken)}"
    unseen = [finding.seen for finding in found if finding.holds is None]
    if unseen and check in deployment.health.observe:
        unobservable("gpus", f"{check}, which {deployment.name} asks for: {'; '.join(unseen)}")
    if unseen:
        not_applicable(f"{check} is not observable here: {'; '.join(unseen)}")
