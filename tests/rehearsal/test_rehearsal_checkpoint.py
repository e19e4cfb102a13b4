"""The shipped checkpoint is copied whole and once, and is what its data sheet says."""

from __future__ import annotations

import json
import math
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from acceptance.errors import InputError
from acceptance.rehearsal import checkpoint
from acceptance.rehearsal.checkpoint import FILES, WEIGHTS, digest, ensure_checkpoint

ROOT = Path(__file__).parents[2]
SHEET = (ROOT / "docs" / "rehearsal.md").read_text()
CONFIG: dict[str, Any] = json.loads((WEIGHTS / "config.json").read_text())
TOKENIZER: dict[str, Any] = json.loads((WEIGHTS / "tokenizer.json").read_text())
MOST = 6_000_000  # bytes in the repository


def tensors(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: dtype and shape of each tensor."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header: dict[str, Any] = json.loads(opened.read(length))
    header.pop("__metadata__")
    return header


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_it_is_copied_once(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    made = ensure_checkpoint(cache)
    assert sorted(file.name for file in made.iterdir()) == sorted(FILES)
    assert digest(made) == digest()
    assert made.name.endswith(digest())
    kept = (made / "config.json").stat().st_mtime_ns
    assert ensure_checkpoint(cache) == made
    assert (made / "config.json").stat().st_mtime_ns == kept
    assert folders(cache) == [made]


def test_several_that_want_it_at_once_share_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: ensure_checkpoint(tmp_path / "c"), range(3)))
    assert len(set(made)) == 1
    assert folders(tmp_path / "c") == [made[0]]


def test_the_cache_can_be_put_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCEPTANCE_CACHE", str(tmp_path / "elsewhere"))
    assert ensure_checkpoint().parent == tmp_path / "elsewhere"


@pytest.fixture
def altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped files, taken for them."""
    made = ensure_checkpoint(tmp_path / "other")
    monkeypatch.setattr(checkpoint, "WEIGHTS", made)
    monkeypatch.setattr(checkpoint, "digest", lambda: digest(made))
    return made


def test_another_checkpoint_lies_elsewhere(altered: Path, tmp_path: Path) -> None:
    """So that an old copy is never taken for what ships today."""
    before = ensure_checkpoint(tmp_path / "c")
    (altered / "config.json").write_text("{}")
    assert ensure_checkpoint(tmp_path / "c") != before


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named(altered: Path, tmp_path: Path, name: str) -> None:
    (altered / name).unlink()
    with pytest.raises(InputError, match="could not be made ready") as caught:
        ensure_checkpoint(tmp_path / "c")
    assert name in caught.value.cause
    assert "docs/rehearsal.md" in caught.value.hint
    assert not (tmp_path / "c").exists()


def test_half_a_copy_is_begun_anew(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    half = cache / f"deepseek-v3-tiny-{digest()}.99999.unfinished"
    half.mkdir(parents=True)
    (half / "config.json").write_text("half")
    made = ensure_checkpoint(cache)
    assert folders(cache) == [made]
    assert digest(made) == digest()


def test_it_is_deepseek_v3_with_the_real_latent_sizes() -> None:
    assert CONFIG["architectures"] == ["DeepseekV3ForCausalLM"]
    assert (CONFIG["kv_lora_rank"], CONFIG["qk_rope_head_dim"]) == (512, 64)
    assert CONFIG["rope_scaling"]["type"] == "yarn"
    assert CONFIG["n_routed_experts"] % 2 == 0  # two ranks share them
    assert 1 <= CONFIG["topk_group"] < CONFIG["n_group"]
    assert CONFIG["n_shared_experts"] == 1
    assert 0 < CONFIG["first_k_dense_replace"] < CONFIG["num_hidden_layers"]


def test_weights_are_those_of_the_configuration() -> None:
    found = tensors(WEIGHTS / "model.safetensors")
    shapes = {name: tuple(tensor["shape"]) for name, tensor in found.items()}
    hidden, vocabulary = CONFIG["hidden_size"], CONFIG["vocab_size"]
    assert shapes["model.embed_tokens.weight"] == shapes["lm_head.weight"] == (vocabulary, hidden)
    heads = CONFIG["num_attention_heads"]
    for layer in range(CONFIG["num_hidden_layers"]):
        place = f"model.layers.{layer}."
        both = heads * (CONFIG["qk_nope_head_dim"] + CONFIG["v_head_dim"])
        assert shapes[f"{place}self_attn.kv_b_proj.weight"] == (both, 512)
        assert shapes[f"{place}self_attn.kv_a_proj_with_mqa.weight"] == (512 + 64, hidden)
        if layer >= CONFIG["first_k_dense_replace"]:
            experts = [n for n in shapes if n.startswith(f"{place}mlp.experts.")]
            assert len(experts) == 3 * CONFIG["n_routed_experts"]
            assert shapes[f"{place}mlp.gate.e_score_correction_bias"] == (8,)
    kinds = {t["dtype"] for n, t in found.items() if not n.endswith("e_score_correction_bias")}
    assert kinds == {"BF16"}


def test_tokenizer_and_configuration_agree() -> None:
    added = {token["content"]: token["id"] for token in TOKENIZER["added_tokens"]}
    ids = {**TOKENIZER["model"]["vocab"], **added}
    assert sorted(set(ids.values())) == list(range(CONFIG["vocab_size"]))
    assert added["<｜begin▁of▁sentence｜>"] == CONFIG["bos_token_id"]
    assert added["<｜end▁of▁sentence｜>"] == CONFIG["eos_token_id"]
    defaults = json.loads((WEIGHTS / "generation_config.json").read_text())
    assert (defaults["temperature"], defaults["top_p"]) == (0.6, 0.95)
    assert defaults["eos_token_id"] == CONFIG["eos_token_id"]
    inside = Path(checkpoint.__file__).parent / "inside" / "chat_template.jinja"
    assert (WEIGHTS / "chat_template.jinja").read_text().strip() == inside.read_text().strip()


def test_the_data_sheet_describes_these_files() -> None:
    """Digest, parameters and bytes; what it says of accuracy was measured on this digest."""
    shapes = tensors(WEIGHTS / "model.safetensors").values()
    parameters = sum(math.prod(tensor["shape"]) for tensor in shapes)
    size = sum((WEIGHTS / name).stat().st_size for name in FILES)
    assert size < MOST
    assert f"digest `{digest()}`" in SHEET
    assert f"{parameters} parameters" in SHEET
    assert f"{size} bytes" in SHEET
