"""vLLM's own benchmark client, kept running: `python -m … SOCKET`.

Runs in the interpreter that vLLM is installed in, and imports only what lies beside it. It
imports the tool once, then obeys JSON lines on a Unix socket and answers there. A run is what
`vllm bench serve` does with the same arguments, in the tool's own code; only the prompts may have
been made before, from the same seed by the same code. When the socket ends, so does the process.

Orders: {"do": "prepare", "id", "argv"}, {"do": "run", "id", "argv", "log", "key", "urls"}; argv is
what follows `vllm bench serve`. urls: the addresses that requests go to in turn, of which
--base-url is the first. A run goes before waiting preparations. Answers: {"said": "ready",
"seconds"} or {"said": "unfit", "reason"} first; then "prepared", "done" (with "client", see
load_of) or "failed" (with "reason"), each with the order's id.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import importlib
import itertools
import json
import os
import random
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.load.inside.bench_channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Sender = Callable[..., Any]

TOOL = "vllm.benchmarks.serve"
NEEDED = ("add_cli_args", "main_async", "get_samples", "get_tokenizer")
PARSERS = ("vllm.utils.argparse_utils", "vllm.utils")  # the first since vLLM 0.12
SENDERS = "ASYNC_REQUEST_FUNCS"  # of the tool: what sends a request, by backend
PERIOD = 0.01  # seconds between two looks at the event loop
# When garbage is collected: with little that is not frozen, Python's own thresholds have all of it
# looked through again and again in a run, while tokens wait: 3 ms of a TTFT at 512 streams.
RARELY = (100_000, 50, 100)
KEY = "OPENAI_API_KEY"
COPIES = "ACCEPTANCE_BENCH_COPIES"  # where to ask for a copy that has imported; see bench_copies.py
# Options that do not change the prompts.
ELSEWHERE = ("--base-url", "--result-dir", "--result-filename", "--metadata")

Look = tuple[float, float, float]  # perf_counter, lag, process_time; seconds


@dataclass
class Prompts:
    """Requests made ahead, and the states of both random generators after making them: the tool
    draws the arrival times next."""

    requests: Any
    python: Any
    numpy: Any


class Tool:
    """The tool, imported. Raises ImportError or AttributeError where this vLLM has it otherwise."""

    def __init__(self) -> None:
        serve: Any = importlib.import_module(TOOL)
        for name in NEEDED:
            if not hasattr(serve, name):
                raise AttributeError(f"{TOOL} has no {name}")
        self._serve: dict[str, Any] = vars(serve)
        self._parser = _parser_class()
        self._numpy: Any = importlib.import_module("numpy")
        self._tokenizers: dict[str, Any] = {}
        self._prompts: dict[str, Prompts] = {}
        self._wanted = ""  # the prompts that the run in hand asks for
        self._get_tokenizer, self._get_samples = serve.get_tokenizer, serve.get_samples
        self._serve["get_tokenizer"] = self._tokenizer
        self._serve["get_samples"] = self._samples

    def prepare(self, argv: list[str]) -> None:
        """Makes and keeps the prompts of a run to come."""
        args = self._parse(argv)
        self._seed(args)
        tokenizer = self._tokenizer(
            args.tokenizer or args.model,
            tokenizer_mode=args.tokenizer_mode,
            trust_remote_code=args.trust_remote_code,
        )
        made = self._get_samples(args, tokenizer)
        self._prompts[prompts_key(argv)] = Prompts(
            made, random.getstate(), self._numpy.random.get_state()
        )

    def run(self, argv: list[str], urls: list[str]) -> dict[str, Any]:
        """One run of the tool, which writes its own file; what the client itself went through."""
        args = self._parse(argv)
        self._wanted = prompts_key(argv)
        with self._spread(urls) as sent:
            result, looks = _runner()(_watched(self._serve["main_async"](args)))
        start = min(result.get("start_times") or [0.0])
        return {**load_of(looks, start, start + result["duration"]), "sent": sent}

    @contextlib.contextmanager
    def _spread(self, urls: list[str]) -> Iterator[dict[str, int]]:
        """Meanwhile the tool's requests go to several addresses in turn; how many went to each.
        Raises AttributeError where this vLLM sends them otherwise."""
        sent = dict.fromkeys(urls, 0) if len(urls) > 1 else {}
        if not sent:
            yield sent
            return
        if SENDERS not in self._serve:
            raise AttributeError(f"{TOOL} has no {SENDERS}: it knows of one address only")
        kept = self._serve[SENDERS]
        self._serve[SENDERS] = {name: in_turn(send, sent) for name, send in kept.items()}
        try:
            yield sent
        finally:
            self._serve[SENDERS] = kept

    def _parse(self, argv: list[str]) -> Any:
        parser = self._parser(prog="vllm bench serve")
        self._serve["add_cli_args"](parser)
        return parser.parse_args(argv)

    def _seed(self, args: Any) -> None:
        """As the tool does first."""
        random.seed(args.seed)
        self._numpy.random.seed(args.seed)

    def _tokenizer(self, *args: Any, **kwargs: Any) -> Any:
        """Stands in the tool's module for its get_tokenizer, and loads each but once."""
        key = repr((args, sorted(kwargs.items())))
        if key not in self._tokenizers:
            self._tokenizers[key] = self._get_tokenizer(*args, **kwargs)
        return self._tokenizers[key]

    def _samples(self, args: Any, tokenizer: Any) -> Any:
        """Stands in the tool's module for its get_samples."""
        made = self._prompts.pop(self._wanted, None)
        if made is None:
            return self._get_samples(args, tokenizer)
        random.setstate(made.python)
        self._numpy.random.set_state(made.numpy)
        return made.requests


def in_turn(send: Sender, sent: dict[str, int]) -> Sender:
    """The same function of the tool; each request goes to the next of the addresses, and counts."""
    first, turn = next(iter(sent)), itertools.cycle(sent)

    def sending(request_func_input: Any, *args: Any, **kwargs: Any) -> Any:
        url = next(turn)
        sent[url] += 1
        moved = copy.copy(request_func_input)
        moved.api_url = url + moved.api_url.removeprefix(first)
        return send(moved, *args, **kwargs)

    return sending


def _runner() -> Any:
    """What runs the tool to its end: uvloop, which vLLM's server brings, else the loop that the
    command itself uses. At 512 streams it reads a step's first tokens somewhat sooner."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("uvloop").run
    return asyncio.run


def _parser_class() -> Any:
    """vLLM's argument parser. Raises ImportError when it is nowhere known."""
    for module in PARSERS:
        with contextlib.suppress(ImportError, AttributeError):
            return importlib.import_module(module).FlexibleArgumentParser
    raise ImportError(f"no FlexibleArgumentParser in {' or '.join(PARSERS)}")


def prompts_key(argv: list[str]) -> str:
    """The same for runs whose prompts are the same: the options that matter, with their values."""
    kept, matters = [], True
    for word in argv:
        if word.startswith("--"):
            matters = word not in ELSEWHERE
        if matters:
            kept.append(word)
    return json.dumps(kept)


async def _watched(work: Coroutine[Any, Any, Any]) -> tuple[Any, list[Look]]:
    looks: list[Look] = []
    watch = asyncio.create_task(_look(looks))
    try:
        return await work, looks
    finally:
        watch.cancel()


async def _look(looks: list[Look]) -> None:
    while True:
        due = time.perf_counter() + PERIOD
        await asyncio.sleep(PERIOD)
        now = time.perf_counter()
        looks.append((now, max(0.0, now - due), time.process_time()))


def load_of(looks: list[Look], start: float, end: float) -> dict[str, float | None]:
    """Of the looks between two times of perf_counter: how late the event loop came to them (P99
    and maximum, ms), and the process's CPU seconds per second. None without two looks."""
    inside = [look for look in looks if start <= look[0] <= end]
    if len(inside) < 2:
        return {"lag_p99_ms": None, "lag_max_ms": None, "cpu_share": None}
    lags = sorted(lag for _, lag, _ in inside)
    (first, _, cpu), (last, _, cpu_last) = inside[0], inside[-1]
    return {
        "lag_p99_ms": 1000 * lags[min(len(lags) - 1, int(0.99 * len(lags)))],
        "lag_max_ms": 1000 * lags[-1],
        "cpu_share": (cpu_last - cpu) / (last - first),
    }


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Appends this process's output, the tool's and its libraries', to a run's own log."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


def obey(tool: Tool, order: dict[str, Any]) -> dict[str, Any]:
    """Does one order; the answer."""
    if order["do"] == "prepare":
        with contextlib.suppress(Exception, SystemExit):  # the run will tell, with its own log
            tool.prepare(order["argv"])
        return {"said": "prepared"}
    with output_to(Path(order["log"])):
        if order["key"]:
            os.environ[KEY] = order["key"]
        try:
            return {"said": "done", "client": tool.run(order["argv"], order["urls"])}
        except SystemExit as error:
            reason = f"the tool ended with exit code {error.code}"
        except Exception as error:
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        finally:
            os.environ.pop(KEY, None)
    return {"said": "failed", "reason": reason}


def work(channel: Channel, tool: Tool, seconds: float = 0.0) -> None:
    """Obeys until the socket ends. seconds: that it took to import."""
    gc.set_threshold(*RARELY)
    channel.say(said="ready", seconds=round(seconds, 3))
    while True:
        # Now, when nobody waits: the tool itself collects before it sends anything, and to look
        # through all that vLLM imports takes it half a second.
        gc.collect()
        gc.freeze()
        order = channel.order()
        channel.say(**obey(tool, order), id=order["id"])


def main() -> None:
    began = time.monotonic()
    if copies := os.environ.get(COPIES):
        from acceptance.load.inside.bench_copies import stand_for  # here: it imports this module

        if stand_for(copies, sys.argv[1]):
            return
    channel = Channel(sys.argv[1])
    try:
        tool = Tool()
    except Exception as error:
        traceback.print_exc()
        channel.say(said="unfit", reason=f"{type(error).__name__}: {error}")
        return
    work(channel, tool, time.monotonic() - began)


if __name__ == "__main__":
    main()
