"""Whole runs of the slice on a made-up GPU: a fake vLLM, and the real nvidia-ml-py over a stand-in
for the driver's library. What happens to the GPU ends in the verdict that it should."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from acceptance.gpus.tail import read_telemetry
from acceptance.judging.judgement import Outcome
from reports.reading import Results, read_results
from reports.schema import JudgementRecord, ServerRecord, TestRecord

ROOT = Path(__file__).parents[2]
FAKE_VLLM = ROOT / "tests" / "fakes" / "fake_vllm.py"
HEALTHY = {"count": 1, "taken_mib": 100, "processes": 0, "pending": 0, "mig": 0}
LIMIT = 120.0  # seconds: a run that hangs fails its test


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    results: Results

    def outcomes(self, check: str) -> dict[str, tuple[Outcome, str]]:
        """What each parameter of a check came to, and why."""
        return {
            record.check.nodeid.rpartition("-")[2].rstrip("]"): (
                record.judgement.outcome,
                f"{record.judgement.reason} {record.judgement.measurement.value}",
            )
            for record in self.results.records
            if isinstance(record, JudgementRecord) and f"::{check}[" in record.check.nodeid
        }


@dataclass(frozen=True)
class Host:
    """A host whose one GPU is in the given state."""

    folder: Path

    def run(
        self,
        *words: str,
        faults: str = "",
        init: str = "0",
        deployment: str = "slice-fp8-1xh200",
        **state: int,
    ) -> Ran:
        found = self.folder / "installed" / "vllm-0.25.1.dist-info"
        found.mkdir(parents=True, exist_ok=True)
        (found / "METADATA").write_text("Name: vllm\nVersion: 0.25.1\n")
        (self.folder / "state").write_text(
            "".join(f"{name} {value}\n" for name, value in {**HEALTHY, **state}.items())
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CUDA_"))}
        env = {
            **kept,
            "PYTHONPATH": os.pathsep.join([str(found.parent), str(ROOT)]),
            "FAKE_NVML_STATE": str(self.folder / "state"),
            "FAKE_NVML_INIT": init,
            "FAKE_VLLM": faults,
            "ACCEPTANCE_CACHE": str(self.folder / "cache"),
            "ACCEPTANCE_LOCKS": str(self.folder / "locks"),
        }
        run_dir = self.folder / "run"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words),
                *("--deployment", deployment, "--run-dir", str(run_dir)),
                *("--vllm", f"{sys.executable} {FAKE_VLLM}"),
            ],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        results = read_results(run_dir) if run_dir.is_dir() else Results((), ())
        return Ran(done.returncode, done.stdout + done.stderr, results)


@pytest.fixture
def host(library: Path, tmp_path: Path) -> Host:
    return Host(tmp_path)


HEALTH = "suites/memory/test_health.py"


def test_a_healthy_gpu_is_watched_from_before_the_start_until_its_memory_is_back(
    host: Host,
) -> None:
    ran = host.run(HEALTH)
    fit = ran.outcomes("test_gpus_are_fit")
    assert {name for name, (outcome, _) in fit.items() if outcome is Outcome.PASS} == {
        *("driver", "mig", "processes", "idle", "ecc", "remap")
    }, ran.out
    assert fit["power_limit"][0] is Outcome.NOT_RUN  # the stand-in does not answer
    assert "NVML_ERROR_FUNCTION_NOT_FOUND" in fit["power_limit"][1]
    assert set(ran.outcomes("test_nothing_happened_to_the_gpus")) == {
        *("xid", "ecc_errors", "row_remaps", "throttling", "others")
    }
    assert "FAIL" not in ran.out
    telemetry = read_telemetry(host.folder / "run" / "telemetry" / "slice-fp8-1xh200.gpus.jsonl")
    assert telemetry.ended is not None
    assert telemetry.samples == telemetry.ended["ticks"] > 1


@pytest.mark.parametrize(
    ("state", "check", "told"),
    [
        ({"xid": 79}, "xid", "Xid 79 (hardware)"),
        ({"xid": 31}, "xid", "Xid 31 (software)"),
        ({"reasons": 0x48}, "throttling", "hw_slowdown, hw_thermal"),
    ],
    ids=["xid-79", "xid-31", "throttled"],
)
def test_what_happens_to_a_gpu_fails_its_check_and_names_it(
    host: Host, state: dict[str, int], check: str, told: str
) -> None:
    ran = host.run(HEALTH, "-k", "nothing_happened", **state)
    found = ran.outcomes("test_nothing_happened_to_the_gpus")
    failed = [name for name, (outcome, _) in found.items() if outcome is Outcome.FAIL]
    assert failed == [check], ran.out
    assert told in found[check][1]
    assert "GPU 0 (NVIDIA H200, GPU-0aaaaaaa-" in found[check][1]
    assert "REJECTED" in ran.out


def test_a_server_that_dies_of_its_gpu_is_booked_as_hardware(host: Host) -> None:
    ran = host.run("suites/conformance/test_completions.py", faults="die-while-serving", xid=79)
    failed = [r for r in ran.results.records if isinstance(r, ServerRecord) and r.trace.cause]
    assert failed, ran.out
    cause = failed[-1].trace.cause
    assert "hardware: Xid 79 (hardware) on GPU 0 (NVIDIA H200, GPU-0aaaaaaa-" in cause
    assert "died unexpectedly" in cause  # what the server itself said is kept
    assert "take this GPU out of service" in ran.out


def test_a_leak_of_a_gib_a_request_is_rejected_with_gpu_growth_and_ceiling(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cells of single requests, by a client that really sends them."""
    monkeypatch.setenv("FAKE_VLLM_PACE", "0")
    ran = host.run(
        *("suites/performance/test_matrix.py", "suites/memory/test_headroom.py", "--tier", "gate"),
        *("-k", "test_every_request_completes and b1] and not decode or test_memory_does_not"),
        *("--load-engine", "cli"),
        faults="leaks-gpu",
    )
    judged = [r for r in ran.results.records if isinstance(r, JudgementRecord)]
    cells = [r.judgement.outcome for r in judged if "test_matrix" in r.check.nodeid]
    assert cells == [Outcome.PASS] * 2, ran.out
    for metric, ceiling in (("growth_gib", 8.0), ("late_growth_gib", 1.0)):
        (found,) = [r.judgement for r in judged if r.judgement.measurement.name == metric]
        assert found.outcome is Outcome.FAIL, ran.out
        assert found.limit is not None
        assert found.limit.upper == ceiling
        grown = found.measurement.value
        assert grown is not None
        assert grown > ceiling
        assert grown == int(grown), "a GiB a request"
        assert str(found.measurement.evidence["gpu"]).startswith("GPU 0 (NVIDIA H200, GPU-0aaaa")
        assert f"{metric}: {grown:g} GiB, at most {ceiling:g} GiB" in ran.out
    assert "REJECTED" in ran.out


def test_a_gpu_in_use_is_not_leased_and_the_process_is_named(host: Host) -> None:
    ran = host.run(HEALTH, taken_mib=40 << 10, processes=2)
    assert "0 of 1 GPUs can be leased" in ran.out
    assert "40.0 GiB in use by pid 4711" in ran.out


@pytest.mark.parametrize(
    ("init", "reason"), [("9", "driver not loaded"), ("", "library not found")]
)
def test_a_host_without_a_driver_says_so_and_starts_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch, init: str, reason: str
) -> None:
    if not init:  # what is found in place of the library is none
        (host.folder / "libnvidia-ml.so.1").touch()
        monkeypatch.setenv("LD_LIBRARY_PATH", str(host.folder))
    ran = host.run(HEALTH, init=init)
    assert ran.code not in (0, 1)
    assert f"needs 1 H200, this host has 0 of 1 (NVML: {reason})" in ran.out
    assert not ran.results.records


def test_a_gpu_that_waits_for_a_reset_and_answers_not_all_that_is_asked_for(host: Host) -> None:
    """slice-fp8-1xh200 asks for mig by name, and not for power_limit: what cannot be observed is
    listed, and keeps the verdict where the deployment says so."""
    ran = host.run(HEALTH, "-k", "fit", pending=1, mig=-1)
    fit = ran.outcomes("test_gpus_are_fit")
    assert fit["remap"][0] is Outcome.FAIL
    assert {fit[name][0] for name in ("mig", "power_limit")} == {Outcome.NOT_RUN}, ran.out
    assert "mig, which slice-fp8-1xh200 asks for" in fit["mig"][1]
    assert "power_limit is not observable here" in fit["power_limit"][1]
    required = {
        r.check.nodeid.rpartition("-")[2]: r.judgement.required
        for r in ran.results.records
        if isinstance(r, JudgementRecord)
    }
    assert (required["mig]"], required["power_limit]"]) == (True, False)


def test_two_deployments_of_four_share_eight_b200_side_by_side_and_no_gpu(host: Host) -> None:
    ran = host.run(
        *("-n", "2", "suites/memory/test_health.py", "-k", "fit"),
        deployment="fp4-4xb200-*",
        count=8,
        b200=1,
        lost=0,
    )
    sampled = {
        path.name.removesuffix(".gpus.jsonl"): read_telemetry(path)
        for path in (host.folder / "run" / "telemetry").glob("*.gpus.jsonl")
    }
    assert sampled.keys() == {"fp4-4xb200-tp-ep", "fp4-4xb200-dp-ep"}, ran.out
    one, other = sampled.values()
    assert len(one.gpus) == len(other.gpus) == 4
    assert not set(one.gpus) & set(other.gpus), "each GPU is leased once"
    spans = [(told.memory[0][0], told.memory[-1][0]) for told in (one, other)]
    assert max(start for start, _ in spans) < min(end for _, end in spans), "at the same time"
    assert "REJECTED" not in ran.out, ran.out
    fit = [r for r in ran.results.records if isinstance(r, TestRecord) and "fit[" in r.check.nodeid]
    assert {r.check.deployment for r in fit} == sampled.keys()
