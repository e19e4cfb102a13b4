from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptance.serving import kinds
from acceptance.serving.cause import Cause, CauseFinder, of_death, root_cause
from acceptance.serving.line import LogLine, parse
from acceptance.serving.log import read_lines

LOGS = Path(__file__).parents[1] / "data" / "logs"


def find(text: str) -> Cause:
    """The cause in a log given as text; a line that ends in CR goes on in the next."""
    lines: list[LogLine] = []
    for number, line in enumerate(text.split("\n"), start=1):
        lines += parse(line.rstrip("\r"), number, continues=line.endswith("\r"))
    return root_cause(lines)


def record(text: str, process: str = "Worker_TP0_EP0", level: str = "ERROR") -> str:
    """A record of vLLM's logger, one or many lines."""
    head = f"({process} pid=7) {level} 11-24 05:42:28 [multiproc_executor.py:953] "
    return "\r\n".join(head + line for line in text.split("\n"))


def traceback(exception: str, *frames: str) -> str:
    stack = [f'  File "/venv/x/{name}.py", line 7, in {name}\n    {name}()' for name in frames]
    return "\n".join(["Traceback (most recent call last):", *stack, exception])


@pytest.mark.parametrize(
    ("name", "line", "process", "kind"),
    [
        (
            "real-worker-keyerror.log",
            "KeyError: 'layers.1.mlp.gate.e_score_correction_bias' in load_weights "
            "(deepseek_v2.py:1820)",
            "Worker_TP1_EP1",
            "weights-mismatch",
        ),
        (
            "real-worker-segfault.log",
            "worker VllmWorker-1 killed by signal SIGSEGV in fused_moe_impl<...> "
            "(cpu_fused_moe.cpp:242)",
            "VllmWorker-1",
            "segfault",
        ),
        (
            "real-dp2-without-collective.log",
            "NotImplementedError in all_gatherv (base_device_communicator.py:296)",
            "Worker_DP0_EP0",
            "collective-missing",
        ),
        (
            "synthetic-cuda-oom-capture.log",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 784.00 MiB. GPU 3 has a "
            "total capacity of 139.80 GiB of which 102.00 MiB is free. Including non-PyTorch "
            "memory, this process has 139.69 GiB memory in use. in capture_end (graphs.py:138)",
            "Worker_TP3_EP3",
            "cuda-oom-capture",
        ),
        (
            "synthetic-nccl-watchdog.log",
            "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7753, "
            "OpType=ALLREDUCE, NumelIn=117440512, NumelOut=117440512, Timeout(ms)=600000) ran for "
            "600061 milliseconds before timing out.",
            "rank0",
            "collective-timeout",
        ),
        (
            "real-tp2-ep-start-and-stop.log",
            "the server was asked to stop (SIGTERM or SIGINT)",
            "APIServer",
            "stopped",
        ),
        (
            "real-dp2-ep-start-and-stop.log",
            "the server was asked to stop (SIGTERM or SIGINT)",
            "ApiServer_0",
            "stopped",
        ),
    ],
)
def test_the_cause_in_a_whole_log(name: str, line: str, process: str, kind: str) -> None:
    cause = root_cause(LOGS / name)
    assert (cause.line, cause.process, cause.kind) == (line, process, kind)
    assert cause.hint
    assert any(line.split(" ", 1)[0].split(":")[0] in text for text in cause.excerpt) or kind in (
        "stopped",
        "segfault",
        "collective-timeout",
    )


def test_the_line_number_is_that_of_the_file() -> None:
    path = LOGS / "real-worker-keyerror.log"
    cause = root_cause(path)
    line = path.read_bytes().split(b"\n")[cause.number - 1]
    assert line.endswith(b"Traceback (most recent call last):\r")
    assert b"Worker_TP1_EP1" in line
    assert cause.excerpt[0] == "WorkerProc failed to start."
    assert cause.excerpt[-1] == "KeyError: 'layers.1.mlp.gate.e_score_correction_bias'"


def test_a_log_shorn_of_its_carriage_returns_gives_the_same_cause() -> None:
    for path in LOGS.glob("*.log"):
        text = path.read_text(encoding="utf-8", errors="replace")
        assert find(text.replace("\r\n", "\n")).line == root_cause(path).line, path.name


def test_the_cause_is_known_before_the_log_ends() -> None:
    finder = CauseFinder()
    for line in read_lines(LOGS / "real-worker-keyerror.log"):
        finder.feed(line)
        if line.text.startswith("KeyError"):
            break
    assert finder.cause().line.startswith("KeyError: 'layers.1.mlp.gate")


def _rows() -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in kinds.TABLE["kind"]]


@pytest.mark.parametrize("row", _rows())
def test_every_kind_knows_its_example(row: dict[str, Any]) -> None:
    frames = row.get("example_frames", "main").split()
    example = row["example"]
    if not row.get("alone") or "Error" in example.split(":")[0]:
        text = record("WorkerProc failed to start.\n" + traceback(example, *frames))
        cause = find(text)
        assert (cause.kind, cause.hint, cause.source) == (row["name"], row["hint"], row["source"])
    if row.get("alone") and "Available memory" not in example:
        cause = find(f"something before\n{example}\nsomething after")
        assert (cause.kind, cause.line) == (row["name"], example[:400])
        assert cause.number == 2


@pytest.mark.parametrize("row", _rows())
def test_every_kind_has_a_source_and_a_hint(row: dict[str, Any]) -> None:
    assert set(row) <= {
        "name", "pattern", "frames", "alone", "hint", "source", "example", "example_frames",
    }  # fmt: skip
    assert row["hint"]
    assert row["source"]
    assert len([other for other in kinds.TABLE["kind"] if other["name"] == row["name"]]) == 1


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row["name"]) for row in kinds.TABLE["silence"]]
)
def test_every_silence_knows_its_example(row: dict[str, Any]) -> None:
    cause = find(record(row["example"], level="INFO"))
    assert (cause.kind, cause.hint) == (row["name"], row["hint"])
    assert cause.line.startswith("no exception in the log; silent since 11-24 05:42:28")


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row["name"]) for row in kinds.TABLE["signal"]]
)
def test_every_signal_is_named(row: dict[str, Any]) -> None:
    import signal

    number = int(getattr(signal, row["name"]))
    cause = find(
        record(
            f"Worker proc VllmWorker-1 died unexpectedly (exit code: -{number}), shutting down "
            "executor.",
            process="EngineCore",
        )
    )
    assert cause.line == f"worker VllmWorker-1 killed by signal {row['name']}"
    assert (cause.kind, cause.hint) == (row["kind"], row["hint"])
    assert str(cause) == cause.line


@pytest.mark.parametrize(
    ("text", "line", "kind"),
    [
        (
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core "
            "proc(s): {'EngineCore_DP0': 0, 'EngineCore_DP1': -9}",
            "process EngineCore_DP1 killed by signal SIGKILL",
            "killed",
        ),
        (
            "RuntimeError: Process ApiServer_0 (PID: 123) died with exit code -9",
            "process ApiServer_0 killed by signal SIGKILL",
            "killed",
        ),
        (
            "RuntimeError: Worker proc VllmWorker-0 died unexpectedly (exit code: -64)",
            "worker VllmWorker-0 killed by signal SIGRTMAX",
            "signal",
        ),
    ],
)
def test_a_death_inside_an_exception_is_a_death(text: str, line: str, kind: str) -> None:
    cause = find(traceback(text, "main", "wait_for_engine_startup"))
    assert (cause.line, cause.kind) == (line, kind)


@pytest.mark.parametrize(
    "consequence",
    [
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core "
        "proc(s): {'EngineCore': 1}",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack "
        "trace (above) for the root cause.",
        "RuntimeError: cancelled",
        "Exception: WorkerProc initialization failed due to an exception in a background process. "
        "See stack trace for root cause.",
        "RuntimeError: Worker failed with error 'x', please check the stack trace above for the "
        "root cause",
        "RuntimeError: Frontend process failed during engine core initialization. See root cause "
        "above. Failed frontend proc(s): {'x': 1}",
        "RuntimeError: Process ApiServer_0 (PID: 12) died with exit code 1",
        "RuntimeError: Process ApiServer_0 (PID: 12) died with exit code None",
        "asyncio.exceptions.CancelledError",
        "SystemExit: 1",
    ],
)
def test_consequences_are_told_only_when_nothing_else_is(consequence: str) -> None:
    before = record(traceback(consequence, "result"), process="EngineCore")
    cause = traceback("ValueError: the cause", "work")
    assert find(before).line.startswith(consequence[:60])
    for text in (f"{before}\n{cause}", f"{cause}\n{before}"):
        assert find(text).line == "ValueError: the cause in work (work.py:7)"


@pytest.mark.parametrize(
    "peer",
    [
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection "
        "closed by peer [127.0.0.1]:4321",
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:77, remote process "
        "exited or there was a network error",
        "EOFError",
        "TimeoutError",
        "_queue.Empty",
    ],
)
def test_a_rank_that_loses_its_peer_is_not_the_one_that_failed(peer: str) -> None:
    lost = record("WorkerProc hit an exception.\n" + traceback(peer, "all_reduce"))
    died = record(
        "Worker proc VllmWorker-1 died unexpectedly (exit code: -11), shutting down executor.",
        process="EngineCore",
    )
    assert find(f"{lost}\n{died}").kind == "segfault"
    assert find(lost).line.startswith(peer.split(":")[0])


@pytest.mark.parametrize(
    "link",
    [
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    ],
)
@pytest.mark.parametrize("raw", [True, False])
def test_of_a_chain_the_original_is_told(link: str, raw: bool) -> None:
    chain = "\n".join(
        [
            traceback("KeyError: 'inner'", "outer", "lookup"),
            "",
            link,
            "",
            traceback("RuntimeError: wrapped", "outer"),
        ]
    )
    cause = find(chain if raw else record(f"failed\n{chain}"))
    assert cause.line == "KeyError: 'inner' in lookup (lookup.py:7)"


def test_plumbing_at_the_start_of_a_chain_gives_way() -> None:
    chain = "\n".join(
        [
            traceback("TimeoutError", "acquire_read"),
            "",
            "The above exception was the direct cause of the following exception:",
            "",
            traceback("TimeoutError: RPC call to sample_tokens timed out.", "get_response"),
        ]
    )
    cause = find(record(f"EngineCore encountered a fatal error.\n{chain}", process="EngineCore"))
    assert cause.kind == "rpc-timeout"
    assert cause.line == (
        "TimeoutError: RPC call to sample_tokens timed out. in get_response (get_response.py:7)"
    )


def test_the_inside_of_an_exception_group_is_told() -> None:
    text = """
  + Exception Group Traceback (most recent call last):
  |   File "/venv/x/main.py", line 1, in main
  |     main()
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/venv/x/inner.py", line 2, in inner
    |     inner()
    | ValueError: inside
    +------------------------------------"""
    assert find(text).line == "ValueError: inside in inner (inner.py:2)"


def test_messages_of_many_lines() -> None:
    pydantic = traceback(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "  Value error, No model architectures are specified [type=value_error]\n"
        "    For further information visit https://errors.pydantic.dev/2.12/v/value_error",
        "create_model_config",
    )
    cause = find(f"{pydantic}\nnanobind: leaked 4 instances!")
    assert cause.kind == "bad-config"
    assert "1 validation error for ModelConfig, Value error, No model architectures" in cause.line
    assert not any("nanobind" in text for text in cause.excerpt)
    cuda = traceback(
        "RuntimeError: CUDA error: an illegal memory access was encountered\n"
        "CUDA kernel errors might be asynchronously reported at some other API call.\n"
        "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\n",
        "forward",
    )
    cause = find(record(f"WorkerProc hit an exception.\n{cuda}"))
    assert cause.line == (
        "RuntimeError: CUDA error: an illegal memory access was encountered in forward "
        "(forward.py:7)"
    )
    assert any("CUDA_LAUNCH_BLOCKING" in text for text in cause.excerpt)


def test_a_raw_traceback_is_given_to_the_process_that_is_named_before_it() -> None:
    cause = find("Process EngineCore_DP1:\n" + traceback("ValueError: x", "run"))
    assert cause.process == "EngineCore_DP1"
    older = "\n".join(
        f"(EngineCore_DP0 pid=9) {line}" for line in traceback("ValueError: x", "run").split("\n")
    )
    assert find(older).process == "EngineCore_DP0"


def test_noise_between_the_lines_of_a_raw_traceback_is_passed_over() -> None:
    lines = traceback("ValueError: x", "main", "run").split("\n")
    noisy: list[str] = []
    for line in lines:
        noisy += ["Triton is installed, but does nothing.", record("hello", level="INFO"), line]
    assert find("\n".join(noisy)).line == "ValueError: x in run (run.py:7)"


@pytest.mark.parametrize("seed", range(20))
def test_processes_that_write_at_once_are_kept_apart(seed: int) -> None:
    chance = random.Random(seed)
    queues = [
        record(
            f"WorkerProc failed to start.\n{traceback(f'ValueError: of {n}', 'main', f'f{n}')}",
            process=f"Worker_TP{n}",
        ).split("\r\n")
        for n in range(4)
    ]
    mixed: list[str] = []
    first = ""
    while any(queues):
        queue = chance.choice([queue for queue in queues if queue])
        line = queue.pop(0)
        if not first and "Traceback" in line:
            first = line[line.index("TP") + 2]
        mixed.append(line + ("\r" if queue else ""))
    cause = find("\n".join(mixed))
    assert cause.line == f"ValueError: of {first} in f{first} (f{first}.py:7)"
    assert cause.process == f"Worker_TP{first}"


def test_what_one_request_did_is_not_why_the_server_died() -> None:
    started = "INFO:     Application startup complete."
    request = record("Error in chat\n" + traceback("ValueError: bad prompt", "chat"), "APIServer")
    asgi = "ERROR:    Exception in ASGI application\n" + traceback("KeyError: 'x'", "route")
    died = record("WorkerProc failed.\n" + traceback("IndexError: real", "forward"))
    for one in (request, asgi):
        assert (
            find(f"{started}\n{one}\n{died}").line == "IndexError: real in forward (forward.py:7)"
        )
        assert "Error: " in find(f"{started}\n{one}").line
    assert find(f"{request}\n{died}").line == "ValueError: bad prompt in chat (chat.py:7)"


def test_what_a_start_survived_is_not_why_the_server_died() -> None:
    survived = traceback("ImportError: optional", "probe")
    warned = record("no deep_ep\n" + traceback("ImportError: deep_ep", "probe"), level="WARNING")
    started = "INFO:     Application startup complete."
    died = record("WorkerProc failed.\n" + traceback("IndexError: real", "forward"))
    for early in (survived, warned):
        assert "IndexError" in find(f"{early}\n{started}\n{died}").line
    assert "ImportError" in find(survived).line


def test_a_native_fault_without_a_death_notice_is_told_with_its_frame() -> None:
    cause = find(
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x00007f94 (most recent call first):\n"
        '  File "/venv/x/shm_broadcast.py", line 560 in acquire_read\n'
        '  File "/venv/x/core.py", line 12 in run'
    )
    assert cause.line == (
        "Fatal Python error: Segmentation fault in acquire_read (shm_broadcast.py:560)"
    )
    assert cause.kind == "fatal-python"


def test_exceptions_that_python_ignores_are_ignored() -> None:
    text = "Exception ignored in: <function f>\n" + traceback("TypeError: late", "__del__")
    real = traceback("ValueError: x", "run")
    assert find(f"{text}\nProcess EngineCore:\n{real}").line.startswith("ValueError")


@pytest.mark.parametrize(
    "benign",
    [
        "No available shared memory broadcast block found in 60 seconds.",
        "Found ulimit of 20000 and failed to automatically increase with error current limit. This "
        "can cause fd limit errors like `OSError: [Errno 24] Too many open files`.",
        "Dumping input data for V1 LLM engine: CUDA out of memory",
    ],
)
@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_benign_lines_are_no_cause(benign: str, level: str) -> None:
    cause = find(f"{record(benign, level=level)}\n{record('Starting to load', level='INFO')}")
    assert cause.kind == "silent"
    assert "Starting to load" in cause.line


def test_without_an_exception_the_last_words_are_told() -> None:
    assert find("").kind == "no-output"
    cause = find(
        "\n".join(
            [
                record("Using something odd", level="WARNING"),
                record("Starting to load model x...", level="INFO"),
            ]
        )
    )
    assert cause.line == (
        "no exception in the log; silent since 11-24 05:42:28; last line: "
        '"Starting to load model x..."; last warning: "Using something odd"'
    )
    assert cause.process == ""
    cause = find(f"{record('It went wrong.')}\n{record('Starting to load', level='INFO')}")
    assert (cause.line, cause.kind) == ("It went wrong.", "error-line")
    assert find("only raw output").line == (
        'no exception in the log; silent since its start; last line: "only raw output"'
    )


def test_silence_begins_with_the_last_line_that_tells_the_time() -> None:
    served = [record("Application startup complete.", level="INFO"), *["GET /health 200"] * 20]
    assert "silent since 11-24 05:42:28" in find("\n".join(served)).line


@pytest.mark.parametrize(
    ("log", "fate", "line", "kind"),
    [
        (
            "up",
            "ended with exit code -9 while serving",
            "killed by SIGKILL: no exception",
            "killed",
        ),
        ("", "lost node 1, which ended with exit code -11", "killed by SIGSEGV: ", "segfault"),
        ("up", "ended with exit code 9 while serving", "no exception in the log", "silent"),
        ("MemoryError: x", "ended with exit code -9", "MemoryError: x", "host-memory"),
    ],
)
def test_a_signal_is_the_cause_where_the_log_has_none(
    log: str, fate: str, line: str, kind: str
) -> None:
    text = f"Traceback (most recent call last):\n{log}" if "Error" in log else log
    cause = of_death(find(text), fate)
    assert cause.line.startswith(line)
    assert cause.kind == kind


def test_words_of_a_failure_at_a_harmless_level_are_no_cause() -> None:
    text = record("prompt: 'CUDA out of memory. Traceback (most recent call last):'", level="INFO")
    assert find(text).kind == "silent"


def test_a_failure_before_the_start_offset_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    before = (LOGS / "real-worker-keyerror.log").read_bytes() + b"\n"
    log.write_bytes(before + traceback("ValueError: second", "run").encode())
    assert root_cause(log, len(before)).line == "ValueError: second in run (run.py:7)"
    assert root_cause(tmp_path / "none.log").kind == "no-output"


_PIECES = [
    *(
        line
        for path in sorted(LOGS.glob("*.log"))
        for line in path.read_bytes().split(b"\n")[40:75]
    ),
    b"Traceback (most recent call last):",
    b'  File "x.py", line 1, in f',
    b"    f()",
    b"ValueError: x",
    b"Fatal Python error: Aborted",
    b"  + Exception Group Traceback (most recent call last):",
    b"During handling of the above exception, another exception occurred:",
]


@given(st.lists(st.sampled_from(_PIECES) | st.binary(max_size=80), max_size=80))
@settings(deadline=None, max_examples=200)
def test_no_log_breaks_it(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    log = tmp_path_factory.mktemp("fuzz") / "server.log"
    log.write_bytes(b"\n".join(pieces))
    cause = root_cause(log)
    assert cause.kind
    assert len(cause.line) <= 800
    assert len(cause.excerpt) <= 20
    assert all(len(line) <= 500 for line in cause.excerpt)


@pytest.mark.parametrize(
    "unit",
    ["| ", "Worker ", "(a pid=1) ", "A: 1%|", "Free memory on device ", "MoE backend ", "a.", "a/",
     "Failed core proc(s): {'", " during inference: ", "NotImplementedError", '  File "', "x: ",
     "[EP Rank 1/", "!!!!!!! ", "\x1b[", "error: ", "https://"],
)  # fmt: skip
def test_hostile_lines_cost_no_more_than_their_length(unit: str) -> None:
    """Would not end within the run's time if a pattern were quadratic or worse in practice."""
    text = (unit * 16_000)[:16_000]
    finder = CauseFinder()
    for number in range(50):
        for level in ("INFO", "ERROR"):
            for line in parse(f"(W pid=1) {level} 11-24 05:42:28 [x.py:1] {text}", number):
                finder.feed(line)
        for line in parse(text, number):
            finder.feed(line)
    assert finder.cause().kind
