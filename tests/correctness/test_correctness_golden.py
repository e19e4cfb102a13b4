"""Golden records: what they are bound to, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from stub_model import Stub

import fixtures.correctness as edge
from acceptance.correctness.account import Account
from acceptance.correctness.fingerprint import (
    SAMPLE,
    WHOLE,
    checkpoint_digest,
    find_checkpoint,
    tokenizer_digest,
)
from acceptance.correctness.golden import Binding, Golden, choose, gather, read_golden
from acceptance.correctness.scoring import greedy, score
from acceptance.errors import InputError
from fixtures.run import RUN
from fixtures.selection import SELECTION

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPTS = {"p": [0, *range(6, 40)]}
BINDING = Binding("checkpoint", "tokenizer", "texts")


def golden(**changed: Any) -> Golden:
    http = Stub().client()
    account = Account(score(http, "m", PROMPTS), greedy(http, "m", PROMPTS, 4))
    made = Golden("fp8-8xh200-tp-ep", "tp8+ep", "a/model", "0.32.0", BINDING, account)
    return replace(made, **changed)


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    one, two = golden(), golden(deployment="fp8-8xh200-dp-ep", layout="dp8+ep")
    for made in (one, two):
        made.write(tmp_path / f"{made.deployment}.golden.json")
    gather(list(tmp_path.glob("*.golden.json")), tmp_path / "golden.json")
    found = read_golden(tmp_path / "golden.json")
    assert [entry.deployment for entry in found] == ["fp8-8xh200-dp-ep", "fp8-8xh200-tp-ep"]
    assert found[1].binding == BINDING
    assert found[1].account.scored[0].tokens == tuple(PROMPTS["p"])
    assert choose(found, BINDING, "tp8+ep", "").deployment == "fp8-8xh200-tp-ep"
    assert choose(found[:1], BINDING, "tp8+ep", "").layout == "dp8+ep", "another layout will do"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"checkpoint": "other"}, "another checkpoint: a/model checkpoint; this one is other"),
        ({"tokenizer": "other"}, "another tokenizer"),
        ({"texts": "other"}, "another texts"),
        ({"texts": "other", "tokenizer": "other"}, "another tokenizer and other texts"),
    ],
)
def test_another_binding_is_refused(changed: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        choose([golden()], replace(BINDING, **changed), "tp8+ep", "--golden FILE")
    with pytest.raises(InputError, match="another checkpoint: nothing"):
        choose([], BINDING, "tp8+ep", "--golden FILE")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read"),
        ("{", "is no golden record"),
        ("[]", "is no golden record"),
        ('{"schema": 2, "entries": []}', "schema 2, not 1"),
        ('{"schema": 1, "entries": [{}]}', "is no golden record"),
        ('{"schema": 1, "entries": 7}', "is no golden record"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "golden.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_golden(path)


def checkpoint(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}
    for name, content in {**usual, **files}.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def test_digests_follow_what_they_are_of(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "one")
    assert checkpoint_digest(one) == checkpoint_digest(checkpoint(tmp_path / "same"))
    for name in ("model__safetensors", "config__json"):
        other = checkpoint(tmp_path / name, **{name: b"other"})
        assert checkpoint_digest(other) != checkpoint_digest(one)
        assert tokenizer_digest(other) == tokenizer_digest(one)
    other = checkpoint(tmp_path / "words", tokenizer__json=b"other")
    assert checkpoint_digest(other) == checkpoint_digest(one)
    assert tokenizer_digest(other) != tokenizer_digest(one)
    assert checkpoint_digest(tmp_path) == ""


def test_large_files_are_sampled_at_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acceptance.correctness.fingerprint.WHOLE", 4 * SAMPLE)
    assert WHOLE > SAMPLE
    digests = []
    for name, place in (("a", None), ("b", 1), ("c", -1), ("d", 3 * SAMPLE)):
        content = bytearray(6 * SAMPLE)
        if place is not None:
            content[place] = 1
        digests.append(
            checkpoint_digest(checkpoint(tmp_path / name, model__safetensors=bytes(content)))
        )
    assert len(set(digests[:3])) == 3
    assert digests[3] == digests[0], "its middle is not read"


def test_the_hubs_own_hashes_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--a--model"
    (repository / "blobs").mkdir(parents=True)
    snapshot = checkpoint(repository / "snapshots" / "revision")
    first = checkpoint_digest(snapshot)
    blob = repository / "blobs" / ("ab" * 32)
    blob.write_bytes(b"weights")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(blob)
    linked = checkpoint_digest(snapshot)
    assert linked != first
    blob.write_bytes(b"never read")
    assert checkpoint_digest(snapshot) == linked
    assert find_checkpoint("a/model") == snapshot
    assert find_checkpoint(str(snapshot)) == snapshot
    assert find_checkpoint("a/nother") is None


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """pytest_configure of a run that was given a golden record of `recorded`."""

    def configuring(recorded: Golden, binding: Binding | None, *waived: str) -> Any:
        recorded.write(tmp_path / "x.golden.json")
        gather([tmp_path / "x.golden.json"], tmp_path / "golden.json")
        monkeypatch.setattr(edge, "binding_of", lambda _: binding)
        deployment = SimpleNamespace(
            name="d", model="a/model", layout=SimpleNamespace(label="tp8+ep")
        )
        option = SimpleNamespace(
            golden=tmp_path / "golden.json",
            waive=list(waived),
            base_url="http://x",
            accuracy=[],
            accuracy_data=None,
            accuracy_against=None,
        )
        config: Any = SimpleNamespace(option=option, stash=pytest.Stash())
        config.stash[RUN] = None
        config.stash[SELECTION] = SimpleNamespace(chosen=(deployment,), vllm=None)
        edge.pytest_configure(config)
        return edge.golden_for(config, deployment)  # type: ignore[arg-type]

    return configuring


def test_a_fitting_record_is_bound_before_any_server(configure: Any) -> None:
    assert configure(golden(), BINDING).deployment == "fp8-8xh200-tp-ep"


def test_a_record_that_does_not_fit_stops_the_run(configure: Any) -> None:
    with pytest.raises(pytest.UsageError, match="another checkpoint"):
        configure(golden(), replace(BINDING, checkpoint="other"))


def test_a_checkpoint_out_of_sight_is_waived_by_name_alone(configure: Any) -> None:
    with pytest.raises(pytest.UsageError, match="not on this host"):
        configure(golden(), None)
    assert configure(golden(), None, "checkpoint") is None


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"accuracy": ["gsm9k"]}, "no benchmark is called gsm9k"),
        ({"accuracy_data": Path("/nowhere")}, "/nowhere is no folder"),
        ({"accuracy_against": Path("/nowhere")}, "/nowhere is no folder"),
    ],
)
def test_what_cannot_be_asked_stops_the_run(asked: dict[str, Any], told: str) -> None:
    usual = {"golden": None, "accuracy": [], "accuracy_data": None, "accuracy_against": None}
    config: Any = SimpleNamespace(
        option=SimpleNamespace(**{**usual, **asked}), stash=pytest.Stash()
    )
    edge.pytest_configure(config)  # no run, nothing to refuse
    config.stash[RUN] = None
    with pytest.raises(pytest.UsageError, match=told):
        edge.pytest_configure(config)


@pytest.mark.parametrize("accepted", [True, False])
def test_only_a_run_that_accepts_leaves_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: bool
) -> None:
    (tmp_path / edge.FOLDER).mkdir()
    golden().write(tmp_path / edge.FOLDER / f"d{edge.GOLDEN_PART}")
    monkeypatch.setattr(edge, "read_results", lambda _: None)
    monkeypatch.setattr(edge, "verdict_of", lambda _: SimpleNamespace(accepted=accepted))
    config: Any = SimpleNamespace(stash=pytest.Stash())
    config.stash[edge.RUN_KEY] = SimpleNamespace(run_dir=tmp_path)
    edge.pytest_sessionfinish(SimpleNamespace(config=config))  # type: ignore[arg-type]
    assert (tmp_path / "golden.json").exists() is accepted
    if accepted:
        assert json.loads((tmp_path / "golden.json").read_text())["schema"] == 1
