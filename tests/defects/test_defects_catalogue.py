"""The catalogue is whole: it covers what it must, and names what exists."""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from defects_alter import ALTERATIONS
from defects_catalogue import ROWS, Defect, Expected, World, catalogue
from defects_inject import __doc__ as injections
from pydantic import ValidationError

from acceptance.simulation.faults import read_faults

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
sys.path.append(str(ROOT / "tests"))
from proofs import checks  # noqa: E402 - of the folder above

ENTRIES = list(catalogue().values())
# `vllm#1`, `owner/name#1`, or that nobody was found to have had it.
ISSUE = re.compile(r"none found|[\w./-]+#\d+")
TOP = {"plugin", "alter", "words", "gpu", "pace"}  # what worlds take out of inject for themselves


def test_it_is_large_enough_and_covers_every_class_and_world() -> None:
    assert len(ENTRIES) >= 60
    assert {defect.row for defect in ENTRIES} == set(ROWS)
    assert {defect.world for defect in ENTRIES} >= set(World)
    assert sum(defect.issue == "none found" for defect in ENTRIES) < len(ENTRIES) / 6


# What was asked for, and the entries that stand for it.
ASKED = {
    "hang after NCCL": "hang-after-nccl",
    "silent worker": "worker-stopped-in-start worker-spins",
    "out of memory in each phase": "out-of-memory-weights out-of-memory-profiling "
    "out-of-memory-warm-up out-of-memory-capture nothing-left-for-cache",
    "max_model_len over the cache": "length-over-cache",
    "port taken": "port-taken another-server-answers",
    "missing or corrupted checkpoint": "missing-checkpoint-file truncated-shard weights-corrupted",
    "wrong dtype": "wrong-dtype",
    "variable ignored": "variable-ignored variable-refused",
    "flag dropped": "expert-parallelism-dropped expert-parallelism-dropped-vllm length-dropped",
    "slow start": "slow-but-alive",
    "exit 0": "exit-0-in-start",
    "experts": "expert-zeroed experts-permuted combine-skipped",
    "rank": "rank-garbled",
    "positions": "rope-scale-wrong kv-blocks-aliased wrong-above-a-length garbled-above-a-length",
    "late or in a crowd": "wrong-after-requests wrong-at-a-batch garbled-later cross-talk",
    "sampler": "sampler-ignores-temperature temperature-ignored greedy-ignored seed-ignored",
    "log-probabilities": "nan-logits logprobs-nan logprobs-positive logprobs-shifted",
    "tokenizer and template": "second-bos tokenizer-adds-bos chat-template-replaced",
    "parsers": "reasoning-parser-off reasoning-parser-dropped tool-arguments-broken",
    "stops and counts": "stop-string-leaks usage-completion-off usage-prompt-off",
    "streams": "stream-drops-last-token stream-splits-utf8",
    "prefix cache": "prefix-reused garbled-second-time prefix-caching-left-on prefix-cache-hit",
    "sick but 200": "engine-dead-health-200 hang-while-serving worker-stopped-while-serving",
    "one engine": "engine-starved engine-stuck-while-others-serve engine-never-answers",
    "tail hang": "hang-at-the-end-of-a-load",
    "requests never freed": "aborted-requests-run-on queue-grows",
    "memory": "resident-memory-over-budget growth-at-long-prompts cache-smaller-than-told",
    "left behind": "memory-held-after-exit api-server-killed orphan-after-end",
    "foreign process": "foreign-process-arrives gpu-in-use-before",
    "slower": "ttft-10-percent ttft-20-percent tpot-10-percent tpot-20-percent "
    "throughput-10-percent throughput-20-percent slow-at-large-batches jitter",
    "not measured truly": "cold-kernels speculation-left-on early-end client-saturated",
    "failures in a benchmark": "some-requests-fail every-request-fails stream-error-after-200",
    "hardware": "gpu-throttled xid-in-mid-run",
    "security": "no-key-needed key-logged dev-mode bound-to-all-interfaces",
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_was_asked_for_is_there(asked: str) -> None:
    assert set(ASKED[asked].split()) <= set(catalogue())


@pytest.mark.parametrize("defect", ENTRIES, ids=lambda d: d.id)
def test_an_entry_names_what_exists(defect: Defect) -> None:
    assert ISSUE.fullmatch(defect.issue), defect.issue
    if defect.expect is None:
        assert defect.undetectable
        return
    re.compile(defect.expect.told)
    for part in defect.select:
        path, _, name = part.partition("::")
        if defect.world is World.SPEED:
            path, name = f"suites/performance/{path}", ""
        assert (ROOT / path).exists(), part
        assert not name or _known(f"{path}::{name}"), part
    if defect.expect.check not in ("server", "*"):
        assert _known(defect.expect.check), defect.expect.check


@lru_cache
def _checks() -> frozenset[str]:
    """Node ids of every check, without parameters."""
    split = (name.rpartition(".") for name in checks())
    return frozenset(f"{module.replace('.', '/')}.py::{name}" for module, _, name in split)


def _known(end: str) -> bool:
    """Whether the end of a node id belongs to a check."""
    pattern = re.compile(".*" + ".*".join(map(re.escape, end.split("*"))))
    return any(pattern.fullmatch(one) for one in _checks())


@pytest.mark.parametrize("defect", ENTRIES, ids=lambda d: d.id)
def test_what_is_injected_can_be(defect: Defect) -> None:
    given = defect.inject
    if "alter" in given:
        assert given["alter"] in ALTERATIONS
    if "simulation" in given:
        read_faults(json.dumps(given["simulation"]))
    for name in given.get("plugin", {}):
        assert name in _breaks(), name
    for key in set(given) - TOP:
        assert re.search(rf"\b{key}\b", injections or ""), (
            f"defects_inject.py tells nothing of {key}"
        )


@lru_cache
def _breaks() -> set[str]:
    """What inside/break_model.py can break; read, because it imports torch."""
    tree = ast.parse((HERE / "inside" / "break_model.py").read_text(encoding="utf-8"))
    [found] = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BREAKS"
    )
    return set(ast.literal_eval(found))


def test_every_alteration_is_part_of_an_entry() -> None:
    used = {defect.inject.get("alter") for defect in ENTRIES}
    assert set(ALTERATIONS) - used == {"none"}


def test_everything_that_breaks_vllm_is_part_of_an_entry() -> None:
    used = {name for defect in ENTRIES for name in defect.inject.get("plugin", {})}
    assert _breaks() == used


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "Not an id"},
        {"row": "nowhere"},
        {"world": None},
        {"inject": {}},
        {"select": ()},
        {"expect": None},
        {"undetectable": "because"},
        {"unknown": 1},
        {"untimed": True},
    ],
    ids=str,
)
def test_a_bad_entry_is_refused(wrong: dict[str, object]) -> None:
    good = ENTRIES[0].model_dump()
    Defect.model_validate(good)
    with pytest.raises(ValidationError):
        Defect.model_validate({**good, **wrong})


@pytest.mark.parametrize("found_by_a_clock", ["ttft-20-percent", "client-saturated"])
def test_what_a_clock_finds_is_never_untimed(found_by_a_clock: str) -> None:
    entry = catalogue()[found_by_a_clock]
    assert not entry.untimed
    with pytest.raises(ValidationError, match="without a clock"):
        Defect.model_validate({**entry.model_dump(), "untimed": True})


@pytest.mark.parametrize(
    "wrong",
    [
        {"check": "server"},
        {"outcome": "FAILED"},
        {"rule": "output-length"},
        {"outcome": "REFUSED"},
        {"within": 0},
    ],
    ids=str,
)
def test_a_bad_expectation_is_refused(wrong: dict[str, object]) -> None:
    good = {"check": "test_chat.py::test_shape", "within": 10.0}
    Expected.model_validate(good)
    with pytest.raises(ValidationError):
        Expected.model_validate({**good, **wrong})
