"""The slice's folder is what vLLM and its client can read."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from acceptance.deployments.command import render
from acceptance.deployments.installed import Vllm
from acceptance.deployments.load import load_deployments
from acceptance.deployments.possible import why_impossible
from acceptance.deployments.schema import Deployment, Lane, Precision, Profile
from acceptance.errors import InputError
from acceptance.gpus.kv import kv_shape
from acceptance.rehearsal.checkpoint import ensure_quantised
from acceptance.serving.launch import prepare
from acceptance.slice.checkpoint import ensure_slice
from acceptance.slice.config import LAYERS, VOCABULARY, slice_config
from acceptance.slice.tokenizer import BOS, SPECIAL, byte_alphabet, vocabulary, word

if TYPE_CHECKING:
    from pathlib import Path

OF_LANE = [d for d in load_deployments().values() if d.lane is Lane.SLICE]
SLICES = [d for d in OF_LANE if "r1-slice" in d.model]
TRAINED = [d for d in OF_LANE if "tiny" in d.model]


def test_every_token_has_an_id_and_a_text_of_its_own() -> None:
    known = vocabulary()
    assert sorted(known.values()) == list(range(VOCABULARY))
    assert len(set(byte_alphabet())) == 256
    assert known[SPECIAL[0]] == 0
    assert known["Ġ" + word(0)] == len(SPECIAL) + 256


def test_the_folder_is_made_once_and_whole(tmp_path: Path) -> None:
    made = ensure_slice(Precision.FP8, tmp_path)
    assert sorted(file.name for file in made.iterdir()) == [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    before = (made / "config.json").stat().st_mtime_ns
    assert ensure_slice(Precision.FP8, tmp_path) == made
    assert (made / "config.json").stat().st_mtime_ns == before
    assert ensure_slice(Precision.FP4, tmp_path) != made


def test_the_config_has_r1s_width_and_dense_and_expert_layers() -> None:
    config = slice_config(Precision.FP8)
    assert config["first_k_dense_replace"] < config["num_hidden_layers"] == LAYERS
    assert kv_shape(config, "auto").bytes_per_token == LAYERS * 576 * 2
    assert kv_shape(slice_config(Precision.FP4), "auto").bytes_per_token == LAYERS * 576
    with pytest.raises(InputError, match="no bf16 checkpoint"):
        slice_config(Precision.BF16)


def test_random_prompts_keep_their_tokens(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = ensure_slice(Precision.FP8, tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    drawn = random.Random(0)
    ids = [drawn.randrange(len(SPECIAL) + 256, VOCABULARY) for _ in range(2000)]
    assert tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False).ids == ids
    assert tokenizer.encode(tokenizer.decode(ids)).ids == [SPECIAL.index(BOS), *ids]
    assert tokenizer.num_special_tokens_to_add(is_pair=False) == 1  # as vLLM's benchmark counts
    text = "The capital of France is Paris, 北京 is not."
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("made", SLICES, ids=lambda made: made.name)
def test_a_shipped_slice_is_served_with_dummy_weights(made: Deployment) -> None:
    version = Version("0.25.1")
    assert made.dummy_weights
    assert not why_impossible(made, version)
    shell = render(made, Profile.BENCHMARK, version, port=1, model="folder", gpus=["GPU-0"]).shell()
    assert "--load-format dummy" in shell
    assert f"--served-model-name {made.model}" in shell


@pytest.mark.parametrize("made", TRAINED, ids=lambda made: made.name)
def test_trained_weights_are_made_in_the_deployments_precision(
    made: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = {}

    def ensure(precision: str, *, python: str) -> Path:
        asked[precision] = python
        return tmp_path

    monkeypatch.setattr("acceptance.serving.launch.ensure_quantised", ensure)
    vllm = Vllm(Version("0.25.1"), ("vllm",), cpu=False, python="its-own")
    assert prepare(made, vllm, tmp_path).model_path == str(tmp_path)
    assert asked == {made.precision.value: "its-own"}
    assert made.trained
    assert not why_impossible(made, Version("0.25.1"))
    assert "--load-format" not in render(made, Profile.BENCHMARK, Version("0.25.1"), port=1).shell()


def test_every_slice_is_one_or_the_other() -> None:
    assert len(SLICES) + len(TRAINED) == len(OF_LANE)
    assert all((SLICES, TRAINED))


def test_weights_that_cannot_be_quantised_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be made in nvfp4"):
        ensure_quantised("fp4", python="/no/such/python", cache=tmp_path)
    assert not [made for made in tmp_path.iterdir() if made.is_dir()]


def test_dummy_weights_are_for_the_slice_lane_alone() -> None:
    data = SLICES[0].model_dump() | {"lane": "full"}
    with pytest.raises(ValueError, match="for the slice lane"):
        Deployment.model_validate(data)
