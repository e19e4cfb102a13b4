"""What the suite adds to pytest: collecting and planning 10,000 cells' tests, against as many
trivial tests of plain pytest, in one run.

    python tests/benchmarks/harness.py [--rounds 3]

The cells are the full tier of made-up deployments, a copy of one of the recipe's each. Both sides
are `pytest --collect-only -q`, interpreter start and imports included, best of the rounds; the plan
is `--plan` of the same selection. Target: a ratio of at most 2.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = 2.0
TESTS = 10_000
MODEL = ROOT / "fixtures" / "deployments" / "fp8-8xh200-tp-ep.toml"
TRIVIAL = """
import pytest

@pytest.mark.parametrize("number", range({each}))
@pytest.mark.parametrize("check", range(7))
@pytest.mark.parametrize("cell", range(21))
def test_trivial(number, check, cell):
    pass
"""
PER_DEPLOYMENT = 147  # 21 cells of the full tier, 7 tests each


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    each = -(-TESTS // PER_DEPLOYMENT)
    with tempfile.TemporaryDirectory() as folder:
        plain, made = Path(folder, "plain"), Path(folder, "deployments")
        plain.mkdir()
        made.mkdir()
        (plain / "test_trivial.py").write_text(TRIVIAL.format(each=each), encoding="utf-8")
        text = MODEL.read_text(encoding="utf-8")
        for number in range(each):
            name = f"benchmark-{number}"
            copy = text.replace('name = "fp8-8xh200-tp-ep"', f'name = "{name}"', 1)
            (made / f"{name}.toml").write_text(copy, encoding="utf-8")
        ours = [
            *("suites/performance", f"--deployments={made}", "--deployment=benchmark-*"),
            *("--tier", "full", "--gpus", "8", "--plan", "-q", f"--run-dir={folder}/run"),
        ]
        timed: dict[str, list[float]] = {"plain": [], "plan": []}
        seconds(["--collect-only", "-q", str(plain)], plain, each)  # once unheard, for bytecode
        seconds(ours, ROOT, each)
        for _ in range(rounds):
            timed["plain"].append(seconds(["--collect-only", "-q", str(plain)], plain, each))
            timed["plan"].append(seconds(ours, ROOT, each))
    best = {name: min(found) for name, found in timed.items()}
    count = each * PER_DEPLOYMENT
    print(f"{count} tests, best of {rounds}: plain pytest {best['plain']:.2f} s, ", end="")
    print(f"our plan of as many {best['plan']:.2f} s")
    print(f"ratio {best['plan'] / best['plain']:.2f} (target: at most {TARGET})")
    return 0


def seconds(arguments: list[str], cwd: Path, each: int) -> float:
    """Of one pytest, which must have seen all the tests."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    wanted = f"{each * PER_DEPLOYMENT}"
    if done.returncode or wanted not in done.stdout.replace(",", ""):
        raise SystemExit(f"not all tests were seen:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return took


if __name__ == "__main__":
    sys.exit(main())
