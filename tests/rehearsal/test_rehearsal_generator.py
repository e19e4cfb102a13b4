"""The generated checkpoint: the same bytes each time, and DeepSeek-V3's architecture in small."""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.rehearsal.checkpoint import ensure_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

for needed in ("torch", "transformers"):
    pytest.importorskip(needed, reason=f"{needed} is in the rehearsal's environment only")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints, each generated in a process of its own."""
    caches = [tmp_path_factory.mktemp("cache") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda cache: ensure_checkpoint(sys.executable, cache), caches))


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_the_same_bytes_come_out_each_time(made: list[Path]) -> None:
    """A reference computed from one run's checkpoint holds for the next's."""
    one, other = map(digests, made)
    assert one == other
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(one)


def test_it_is_deepseek_v3_with_the_real_latent_sizes(made: list[Path]) -> None:
    config: dict[str, Any] = json.loads((made[0] / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert config["model_type"] == "deepseek_v3"
    assert (config["kv_lora_rank"], config["qk_rope_head_dim"]) == (512, 64)
    assert config["n_routed_experts"] % 2 == 0  # two ranks share them
    assert 0 < config["first_k_dense_replace"] < config["num_hidden_layers"]


def test_it_is_small(made: list[Path]) -> None:
    """Loading it must cost no more than starting the server that does."""
    assert sum(file.stat().st_size for file in made[0].iterdir()) < 50 * 2**20
