"""Matrices as FP8 in blocks of 128x128 and as NVFP4, and back."""

from __future__ import annotations

import torch

BLOCK, GROUP = 128, 16
FP8_MAX, FP4_MAX = 448.0, 6.0
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def fp8_block(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as e4m3 and its scale_inv, float32 of a value for each block begun."""
    rows, columns = weight.shape
    tall, wide = -(-rows // BLOCK), -(-columns // BLOCK)
    padded = torch.zeros(tall * BLOCK, wide * BLOCK)
    padded[:rows, :columns] = weight.float()
    blocks = padded.view(tall, BLOCK, wide, BLOCK)
    scale = blocks.abs().amax((1, 3)).clamp(min=1e-12) / FP8_MAX
    packed = (blocks / scale[:, None, :, None]).view_as(padded)[:rows, :columns]
    return packed.to(torch.float8_e4m3fn).contiguous(), scale


def fp8_unpacked(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    rows, columns = packed.shape
    spread = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return packed.float() * spread[:rows, :columns]


def nvfp4_packed(
    weight: torch.Tensor, largest: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix (out, in) as bytes (out, in / 2), e4m3 scales (out, in / 16) and a float32 one.

    The lower half of a byte is the earlier value; a value is its sign and three bits of FP4_VALUES.
    largest: absolute value of all matrices that share the float32 scale; of this one without it.
    """
    rows, columns = weight.shape
    groups = weight.float().view(rows, columns // GROUP, GROUP)
    top = groups.abs().max() if largest is None else largest.float()
    whole = (top / (FP4_MAX * FP8_MAX)).clamp(min=1e-12)
    scales = (groups.abs().amax(-1) / (FP4_MAX * whole)).to(torch.float8_e4m3fn)
    step = (scales.float() * whole).clamp(min=1e-20)
    values = torch.tensor(FP4_VALUES)
    between = (values[1:] + values[:-1]) / 2
    scaled = (groups / step[..., None]).view(rows, columns)
    codes = torch.bucketize(scaled.abs(), between) + 8 * (scaled < 0)
    codes = codes.to(torch.uint8)
    return (codes[:, 0::2] | codes[:, 1::2] << 4).contiguous(), scales, whole


def nvfp4_unpacked(packed: torch.Tensor, scales: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    codes = torch.stack([packed & 15, packed >> 4], -1).flatten(1).long()
    values = torch.tensor([*FP4_VALUES, *(-value for value in FP4_VALUES)])[codes]
    return values * (scales.float() * whole).repeat_interleave(GROUP, 1)
