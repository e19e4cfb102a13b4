"""Makes fixtures/references/inferencex.toml from InferenceX's figures, as a table in CSV.

    python tests/tools/inferencex_references.py tests/data/inferencex_dsr1_single_node.csv \
        > fixtures/references/inferencex.toml

The columns are those of tests/data/inferencex_dsr1_single_node.csv. Of several engines and layouts
in one cell, the one with the highest throughput is taken.
"""

from __future__ import annotations

import csv
import sys
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from acceptance.judging.tomlout import toml_text  # noqa: E402
from acceptance.load.workloads import BATCHES, Tier  # noqa: E402

HEADER = """\
What InferenceX (formerly InferenceMAX) measured on the same GPUs, as ADVISORY anchors: shown with
the distance, never gating. Made by tests/tools/inferencex_references.py; do not edit by hand.

None of it is vLLM: the engines are SGLang and TensorRT-LLM, without multi-token prediction. The
load differs too: lengths are uniform in 0.8 to 1.0 of 8192 or 1024, a closed loop keeps so many
requests in flight, ten times as many are sent. TTFT and ITL cannot be compared and are left out.
A burst's throughput includes its ramp and drain, and is lower on the same server.

The newest run of each configuration as of 2026-05-22; of several in one cell, the fastest. Runs
that stalled (P99 of TTFT above 60 s) are left out. `tp` layouts include runs whose experts were
sharded by tensor parallelism (EP1); the source says so."""
WORKLOADS = {
    ("8192", "1024"): "prompt-heavy",
    ("1024", "8192"): "decode-heavy",
    ("1024", "1024"): "balanced",
}
ENGINES = {"sglang": "SGLang", "trt": "TensorRT-LLM"}
STALLED_MS = 60_000
MATRIX = {str(batch) for batch in BATCHES[Tier.FULL]}


def entries(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Two references for each cell of the matrix that any row speaks about."""
    best: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        stalled = float(row["latest_ttft_p99_ms"]) > STALLED_MS
        if row["spec"] != "none" or row["conc"] not in MATRIX or stalled:
            continue
        cell = tuple(row[name] for name in ("hw", "precision", "tp", "dp_attn", "isl", "osl"))
        known = best.setdefault((*cell, row["conc"]), row)
        if _throughput(row) > _throughput(known):
            best[*cell, row["conc"]] = row
    return [entry for row in sorted(best.values(), key=_order) for entry in _pair(row)]


def _throughput(row: dict[str, str]) -> float:
    return float(row["latest_out_tok_s_total"])


def _order(row: dict[str, str]) -> tuple[Any, ...]:
    workload = WORKLOADS[row["isl"], row["osl"]]
    return row["hw"], row["precision"], row["tp"], row["dp_attn"], workload, int(row["conc"])


def _pair(row: dict[str, str]) -> list[dict[str, Any]]:
    way = "dp" if row["dp_attn"] == "1" else "tp"
    conditions = {
        "lane": "full",
        "precision": row["precision"],
        "layout": f"{way}{row['tp']}+ep",
    }
    layout = f"TP{row['tp']} EP{row['ep']}" + (" with attention DP" if way == "dp" else "")
    told = f"{ENGINES[row['framework']]}, {layout}, {row['isl']}/{row['osl']} x {row['conc']}"
    common = {
        "deployment": f"*{row['tp']}x{row['hw']}*",
        "conditions": conditions,
        "workload": WORKLOADS[row["isl"], row["osl"]],
        "batch": int(row["conc"]),
    }
    end = {
        "advisory": True,
        "source": f"InferenceX {row['latest_run_url']} ({told}; not vLLM)",
        "date": date.fromisoformat(row["latest_date"]),
    }
    tpot = {"metric": "tpot_median_ms", "ceiling": float(row["latest_tpot_median_ms"])}
    speed = {"metric": "output_throughput", "floor": _throughput(row)}
    return [
        {**common, **tpot, "unit": "ms", **end},
        {**common, **speed, "unit": "tok/s", **end},
    ]


def main(argv: list[str]) -> int:
    """Prints the references file."""
    if len(argv) != 1:
        print("usage: inferencex_references.py CSV", file=sys.stderr)
        return 2
    with Path(argv[0]).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    print(toml_text(HEADER, {"reference": entries(rows)}), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
