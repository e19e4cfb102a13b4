"""Runs one lm-eval task against a chat server: `python -m … JOB OUT`, both JSON files.

JOB: task, include (folders with task files), data ({split: file} or none), model, urls, concurrent,
tokens, shots, limit, sampling, filter, timeout. Questions go to the urls in turn. The key is in
OPENAI_API_KEY. OUT: either {"answers": [{"question", "right", "extracted", "truncated", "text"}]}
or {"missing": reason} when the data set cannot be had.

Nothing is tokenized here: the server renders its own chat template, so no second BOS can appear.
An answer that was cut off counts as wrong, and is told apart by a mark in its place.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any

TRUNCATED = "[acceptance: truncated]"
INVALID = "[invalid]"
KINDS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
OFFLINE = (
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
    "ConnectionError",
    "ConnectTimeout",
    "DatasetNotFoundError",
    "GatedRepoError",
    "FileNotFoundError",
    "MaxRetryError",
    "Couldn't reach",
    "Cannot send a request",
)


def _model(job: dict[str, Any]) -> Any:
    base: Any = importlib.import_module("lm_eval.models.openai_completions").LocalChatCompletion

    turn = itertools.cycle(job["urls"])

    class Chat(base):  # type: ignore[misc]
        @property
        def base_url(self) -> str:
            return str(next(turn))  # lm-eval reads it for every question

        @base_url.setter
        def base_url(self, _: str) -> None:
            pass

        def parse_generations(self, outputs: Any, **_: Any) -> list[str]:
            texts = []
            for answer in outputs if isinstance(outputs, list) else [outputs]:
                for choice in sorted(answer["choices"], key=lambda c: c["index"]):
                    content = choice["message"].get("content") or ""
                    cut = choice.get("finish_reason") == "length"
                    texts.append(TRUNCATED if cut else content.rpartition("</think>")[2].strip())
            return texts

    return Chat(
        model=job["model"],
        base_url=job["urls"][0],
        num_concurrent=job["concurrent"],
        max_retries=1,
        tokenizer_backend=None,
        tokenized_requests=False,
        max_gen_toks=job["tokens"],
        timeout=job["timeout"],
    )


def _from_files(data: dict[str, str]) -> None:
    """From now on every data set comes from these files (by split). The task stays as lm-eval has
    it, sub-tasks of groups included; only where its questions come from changes."""
    datasets: Any = importlib.import_module("datasets")
    load, kind = datasets.load_dataset, KINDS[Path(next(iter(data.values()))).suffix]
    datasets.load_dataset = lambda *_, **__: load(kind, data_files=data)


def _answers(samples: list[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    found = {}
    for sample in samples:
        if sample.get("filter", wanted) != wanted:
            continue
        text = sample["resps"][0][0]
        extracted = sample["filtered_resps"][0]
        score = next(float(sample[name]) for name in sample["metrics"])
        asked = json.dumps(sample["doc"], sort_keys=True, default=str)
        found[hashlib.sha256(asked.encode()).hexdigest()[:16]] = {
            "right": score >= 1 and text != TRUNCATED,
            "extracted": INVALID not in str(extracted),
            "truncated": text == TRUNCATED,
            "text": text[-300:],
        }
    return [{"question": name, **answer} for name, answer in found.items()]


def main(job_file: Path, out: Path) -> None:
    job = json.loads(job_file.read_text())
    if job["data"]:
        _from_files(job["data"])
    lm_eval = importlib.import_module("lm_eval")
    tasks = importlib.import_module("lm_eval.tasks")
    evaluator: Any = importlib.import_module("lm_eval.evaluator")
    evaluator.add_env_info = lambda *_: None  # asks torch and pip for 15 s; ours is recorded
    try:
        made = lm_eval.simple_evaluate(
            model=_model(job),
            tasks=[job["task"]],
            task_manager=tasks.TaskManager(
                include_path=job["include"] or None, include_defaults=job["defaults"]
            ),
            num_fewshot=job["shots"],
            limit=job["limit"],
            apply_chat_template=True,
            fewshot_as_multiturn=job["shots"] > 0,
            # A chat ends by itself; "Question:" of GSM8K's task would cut reasoning short.
            gen_kwargs={**job["sampling"], "max_gen_toks": job["tokens"], "until": []},
            bootstrap_iters=0,
            log_samples=True,
            random_seed=0,
            numpy_random_seed=0,
            torch_random_seed=None,  # importing torch takes seconds, and nothing here draws from it
        )
    except Exception as error:
        chain = f"{type(error).__name__}: {error} {error.__cause__!r} {error.__context__!r}"
        if not any(word in chain for word in OFFLINE):
            raise
        out.write_text(json.dumps({"missing": chain[:500]}))
        return
    samples = [one for group in made["samples"].values() for one in group]
    out.write_text(json.dumps({"answers": _answers(samples, job["filter"])}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
