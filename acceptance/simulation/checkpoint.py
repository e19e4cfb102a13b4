"""What clients of the simulated server need on disk: configuration and tokenizer, no weights."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from acceptance.made import cache_folder, made_once, write_texts
from acceptance.simulation.language import ASSISTANT, BOS, EOS, SPECIAL, USER, VOCABULARY
from acceptance.simulation.latency import constants

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<｜User｜>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<｜Assistant｜>{{ message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
LENGTH = 131072  # tokens that the tokenizer takes without a warning


def ensure_tokenizer(precision: str, cache: Path | None = None) -> Path:
    """The folder of this precision, written when the cache lacks it. cache: see cache_folder()."""
    files = _files(precision)
    told = json.dumps(files, sort_keys=True).encode()
    wanted = cache_folder(cache) / f"simulated-{precision}-{hashlib.sha256(told).hexdigest()[:12]}"
    texts = {name: json.dumps(data, indent=1, ensure_ascii=False) for name, data in files.items()}
    return made_once(wanted, lambda folder: write_texts(folder, texts))


def _files(precision: str) -> dict[str, Any]:
    return {
        "config.json": _config(precision),
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[BOS],
            "eos_token": SPECIAL[EOS],
            "pad_token": SPECIAL[2],
            "unk_token": SPECIAL[5],
            "additional_special_tokens": [SPECIAL[USER], SPECIAL[ASSISTANT]],
            "clean_up_tokenization_spaces": False,
            "model_max_length": LENGTH,
            "chat_template": TEMPLATE,
        },
    }


def _config(precision: str) -> dict[str, Any]:
    """As much of DeepSeek-R1's configuration as clients and memory arithmetic read."""
    model = constants()["model"]
    config: dict[str, Any] = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "vocab_size": model["vocabulary"],
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": model["layers"],
        "first_k_dense_replace": model["dense_layers"],
        "num_attention_heads": model["heads"],
        "num_key_value_heads": model["heads"],
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": model["experts"],
        "n_shared_experts": 1,
        "num_experts_per_tok": model["experts_per_token"],
        "max_position_embeddings": model["max_position"],
        "torch_dtype": "bfloat16",
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }
    if precision == "fp4":
        config["quantization_config"] = {
            "quant_method": "modelopt_fp4",
            "quantization": {"kv_cache_quant_algo": "FP8"},
        }
    return config


def _tokenizer() -> dict[str, Any]:
    """The format of the tokenizers library: every character is a word."""
    special = [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, text in enumerate(SPECIAL)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "[\\s\\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": SPECIAL[5]},
    }
