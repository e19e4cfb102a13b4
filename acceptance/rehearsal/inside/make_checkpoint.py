"""Writes the tiny DeepSeek-V3 checkpoint: `python -m … OUT CORPUS`.

The architecture is R1's in small: MLA with the real latent sizes (kv_lora_rank 512, rope 64: the
only ones vLLM's CPU kernels take), sigmoid routing with a correction bias over groups, a shared
expert, one dense layer, R1's YaRN rope scaling. Weights are random with a fixed seed, so what it
says is noise; its probabilities are still a sharp function of every part of the network, which is
what comparing implementations needs.

OUT: a directory that does not exist yet. CORPUS: a text file that the tokenizer's merges are
learned from.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 768
SPECIAL = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
THINK = ("<think>", "</think>")
SEED = 20250120  # the day DeepSeek-R1 appeared
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<｜User｜>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "<｜Assistant｜>{{ message['content'] }}<｜end▁of▁sentence｜>"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)


def tokenizer(corpus: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of VOCABULARY tokens with DeepSeek's special tokens first."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(THINK),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train([str(corpus)], trainer)
    backend.add_tokens([AddedToken(token, normalized=False) for token in THINK])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[2],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def config(dtype: torch.dtype) -> DeepseekV3Config:
    """DeepSeek-R1's configuration with every size that may shrink made small."""
    return DeepseekV3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        moe_intermediate_size=128,
        num_hidden_layers=3,
        first_k_dense_replace=1,
        num_attention_heads=8,
        num_key_value_heads=8,
        q_lora_rank=128,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        n_routed_experts=16,
        n_shared_experts=1,
        num_experts_per_tok=4,
        n_group=4,
        topk_group=2,
        topk_method="noaux_tc",
        scoring_func="sigmoid",
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
        num_nextn_predict_layers=0,
        max_position_embeddings=163840,
        rope_theta=10000.0,
        # Plain rope would take vLLM 0.32's CPU kernel, which rotates a strided query wrongly.
        rope_scaling={
            "rope_type": "yarn",
            "factor": 40.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 4096,
        },
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        dtype=dtype,
    )


def fill(model: DeepseekV3ForCausalLM, printable: torch.Tensor) -> None:
    """Random weights of fixed seed. printable: bool per token id; other tokens get a zero row in
    the head, so that greedy text is plain ASCII and never ends by itself."""
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.ndim < 2:
            continue  # norms stay at one, the routing bias at zero
        spread = 1.0 / math.sqrt(parameter.shape[-1])
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            spread *= 0.5
        if "embed_tokens" in name:
            spread = 1.0
        if "lm_head" in name:
            spread *= 2.0
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.data = drawn * spread
    model.lm_head.weight.data[~printable] = 0.0


def main(out: Path, corpus: Path) -> None:
    fast = tokenizer(corpus)
    texts = [fast.decode([index]) for index in range(VOCABULARY)]
    printable = torch.tensor(
        [
            index >= len(SPECIAL) and text.isascii() and text.isprintable() and text not in THINK
            for index, text in enumerate(texts)
        ]
    )
    model = DeepseekV3ForCausalLM(config(torch.bfloat16))
    fill(model, printable)
    model.to(torch.bfloat16)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.6  # as DeepSeek-R1 ships it
    model.generation_config.top_p = 0.95
    model.save_pretrained(out)
    fast.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
