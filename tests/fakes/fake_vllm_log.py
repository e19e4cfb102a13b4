"""Lines as vLLM 0.32 writes them."""

from __future__ import annotations

import os
import time


def line(process: str, text: str, level: str = "INFO", source: str = "core.py:133") -> None:
    """One record."""
    plain(f"{_head(process, level, source)} {text}")


def exception(process: str, title: str, message: str, function: str = "load_weights") -> None:
    """A record with a traceback, each line headed; message: as in "KeyError: 'x'"."""
    head = _head(process, "ERROR", "multiproc_executor.py:953")
    said = [
        title,
        "Traceback (most recent call last):",
        f'  File "/venv/vllm/model_executor/models/deepseek_v2.py", line 1820, in {function}',
        "    param = params_dict[name]",
        message,
    ]
    plain("\n".join(f"{head} {text}" for text in said))


def plain(text: str) -> None:
    """Raw output; one write, because processes share the file."""
    os.write(1, text.encode() + b"\n")


def _head(process: str, level: str, source: str) -> str:
    now = time.strftime("%m-%d %H:%M:%S")
    return f"({process} pid={os.getpid()}) {level} {now} [{source}]"
