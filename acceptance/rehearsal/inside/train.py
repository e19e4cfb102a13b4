"""Trains the rehearsal model: `python -m … OUT`, on CPU or, if torch sees one, a GPU.

Leaves state.pt and `checkpoint`, a folder as shipped, in OUT. Seeds are fixed. Documents are packed
into rows; a document sees nothing of its row's others. Rows are short at first; later every fourth
step has long ones, in which needles are hidden.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from acceptance.rehearsal.inside.export import ship
from acceptance.rehearsal.inside.lessons import Lessons, answer_of
from acceptance.rehearsal.inside.network import Network, sizes
from acceptance.rehearsal.inside.tokenizer import VOCABULARY, build
from acceptance.rehearsal.tasks import KINDS, held_out, needle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.rehearsal.inside.lessons import Document
    from acceptance.rehearsal.tasks import Task

SEED = 20250120  # the day DeepSeek-R1 appeared
SHORT, LONG = 384, 1792  # tokens of a row
NEAR, FAR = 200, 1450  # words of filler around a needle, at most, in such rows
BALANCE = 0.002  # of the correction bias, each step
EVEN = 0.02  # weight of the balance loss


@dataclass(frozen=True)
class Plan:
    """steps in all; rows of SHORT tokens a step; LONG ones every `every` steps from `long_from`
    (a share of the steps) on; lr: the highest."""

    steps: int = 2000
    rows: int = 16
    every: int = 4
    long_from: float = 0.4
    lr: float = 1.5e-3
    decay: float = 0.4

    def is_long(self, step: int) -> bool:
        return step >= self.long_from * self.steps and step % self.every == 0

    def rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / 100)
        left = (self.steps - step) / (self.decay * self.steps)
        return self.lr * warm * min(1.0, max(left, 0.01))


@cache
def tokenizer() -> Any:
    """Made once in each process."""
    return build()


def batch(plan: Plan, step: int) -> dict[str, Any]:
    """Packed rows of a step: ids, places, documents (of each token) and weights (of each target),
    numpy arrays (rows, tokens)."""
    long_ = plan.is_long(step)
    width = LONG if long_ else SHORT
    count = max(1, plan.rows * SHORT // width)
    lessons = Lessons(tokenizer(), f"{SEED} {step}", longest=FAR if long_ else NEAR)
    return packed(iter(lessons), count, width)


def packed(documents: Iterator[Document], count: int, width: int) -> dict[str, Any]:
    """count rows of width tokens, filled by whoever comes first and fits."""
    ids = np.full((count, width), 2, dtype=np.int64)
    places = np.zeros((count, width), dtype=np.int64)
    owner = np.full((count, width), -1, dtype=np.int64)
    weights = np.zeros((count, width), dtype=np.float32)
    used = [0] * count
    misses = number = 0
    while misses < 30:
        document = next(documents)
        size = len(document.tokens)
        row = next((row for row in range(count) if used[row] + size <= width), None)
        if row is None:
            misses += 1
            continue
        here = slice(used[row], used[row] + size)
        ids[row, here] = document.tokens
        places[row, here] = range(size)
        owner[row, here] = number
        weights[row, here] = document.weights
        weights[row, used[row]] = 0  # nothing comes before the first
        used[row] += size
        number += 1
    return {"ids": ids, "places": places, "owner": owner, "weights": weights}


def loss_of(network: Network, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean cross-entropy, weighted."""
    ids, owner, weights = given["ids"], given["owner"], given["weights"]
    same = owner[:, :, None] == owner[:, None, :]
    mask = same.tril()[:, None]
    hidden = network(ids, given["places"], mask)
    wanted = weights[:, 1:] > 0
    logits = network.lm_head(hidden[:, :-1][wanted]).float()
    weight = weights[:, 1:][wanted]
    losses = F.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    return (losses * weight).sum() / weight.sum()


def exact(network: Network, tasks: list[Task]) -> float:
    """The share of tasks whose whole answer the network prefers, token by token."""
    device, encode = network.inverse.device, tokenizer().encode
    lessons = Lessons(tokenizer(), 0)
    right = 0
    network.eval()
    for start in range(0, len(tasks), 16):
        some = tasks[start : start + 16]
        made = []
        for task in some:
            asked = lessons.rendered([{"role": "user", "content": task.prompt}], task.tools)
            parts = [asked, answer_of(task) + tokenizer().eos_token]
            made.append([encode(part, add_special_tokens=False) for part in parts])
        longest = max(len(asked) + len(told) for asked, told in made)
        ids = torch.full((len(made), longest), 2)
        for row, (asked, told) in enumerate(made):
            ids[row, : len(asked) + len(told)] = torch.tensor(asked + told)
        with torch.no_grad():
            best = network.lm_head(network(ids.to(device))).argmax(-1).cpu()
        for row, (asked, told) in enumerate(made):
            said = best[row, len(asked) - 1 : len(asked) + len(told) - 1]
            right += said.tolist() == told
    network.train()
    return right / len(tasks)


def examine(network: Network, n: int = 64) -> dict[str, float]:
    found = {kind: exact(network, held_out(kind, n)) for kind in KINDS}
    for filler in (100, 500, 1300):
        asked = [needle(filler, (seed % 5) / 4, seed) for seed in range(n // 2)]
        found[f"needle {filler}"] = exact(network, asked)
    return found


def optimizers_of(network: Network, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest."""
    inner = {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.ndim == 2 and "layers." in name and ".gate." not in name
    }
    rest = [p for name, p in network.named_parameters() if name not in inner]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [
        torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon(
            list(inner.values()),
            lr=plan.lr,
            weight_decay=0.05,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",  # so that both may have the same rate
        ),
    ]


def learn(
    network: Network, optimizers: list[torch.optim.Optimizer], plan: Plan, step: int, rows: Any
) -> torch.Tensor:
    """One step on packed rows; returns its loss."""
    device = network.inverse.device
    given = {name: torch.from_numpy(array).to(device) for name, array in rows.items()}
    for group in (group for one in optimizers for group in one.param_groups):
        group["lr"] = plan.rate(step)
    with torch.autocast(device.type, torch.bfloat16):
        loss = loss_of(network, given)
        uneven = sum(mixture.uneven for mixture in network.mixtures())
    network.zero_grad()
    (loss + EVEN * uneven).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for one in optimizers:
        one.step()
    for mixture in network.mixtures():
        mixture.balance(BALANCE if step < 0.8 * plan.steps else 0.0)
    return loss.detach()


def ahead(plan: Plan, workers: int) -> Iterator[dict[str, Any]]:
    """The rows of every step, made by workers beside the training."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        first = range(min(4 * workers, plan.steps))
        coming = deque(pool.submit(batch, plan, step) for step in first)
        for step in range(plan.steps):
            if step + 4 * workers < plan.steps:
                coming.append(pool.submit(batch, plan, step + 4 * workers))
            yield coming.popleft().result()


def train(out: Path, plan: Plan, *, workers: int, report: int) -> None:
    """Leaves state.pt in out, anew at every report. report: steps between two of them."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)
    config = sizes(VOCABULARY)
    network = Network(config)
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f"{count} parameters on {device}", flush=True)
    network.to(device)
    optimizers = optimizers_of(network, plan)
    begun, tokens = time.monotonic(), 0
    for step, rows in enumerate(ahead(plan, workers), start=1):
        loss = learn(network, optimizers, plan, step - 1, rows)
        tokens += rows["ids"].size
        if step % report == 0 or step == plan.steps:
            seconds = time.monotonic() - begun
            found = examine(network)
            shown = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
            print(f"{step}: {seconds:.0f} s, {tokens} tokens, loss {loss:.3f}; {shown}", flush=True)
            out.mkdir(parents=True, exist_ok=True)
            torch.save({"state": network.state_dict(), "config": config}, out / "state.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--workers", type=int, default=1, help="processes that make lessons")
    parser.add_argument("--report", type=int, default=400, help="steps between examinations")
    given = parser.parse_args()
    train(given.out, Plan(steps=given.steps), workers=given.workers, report=given.report)
    ship(given.out, given.out / "checkpoint")


if __name__ == "__main__":
    main()
