"""`python tests/survival/cycles.py --simulated 100`: servers started and ended again and again, and
what of each stays in the process that starts them: files, threads, memory, children, ports.

--real 10 does the same with the rehearsal's vLLM, and looks at /dev/shm as well.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2])]

import psutil  # noqa: E402
from packaging.version import Version  # noqa: E402

from acceptance.deployments.installed import Vllm, find_vllm  # noqa: E402
from acceptance.deployments.load import load_deployments  # noqa: E402
from acceptance.deployments.schema import Deployment, Profile  # noqa: E402
from acceptance.secrets import Redactor  # noqa: E402
from acceptance.serving.launch import launch  # noqa: E402
from acceptance.serving.processes import leftovers  # noqa: E402
from acceptance.serving.watch import ServerWatch  # noqa: E402

CLIENT = Vllm(Version("0.32.0"), ("vllm",), cpu=False)
MIB = 1 << 20


@dataclass(frozen=True)
class Held:
    """What this process holds. shared: names in /dev/shm, of everybody."""

    files: int
    threads: int
    children: int
    memory_mib: float
    shared: frozenset[str]

    def __str__(self) -> str:
        return (
            f"{self.files} files, {self.threads} threads, {self.children} children, "
            f"{self.memory_mib:.1f} MiB"
        )


def held() -> Held:
    gc.collect()
    me = psutil.Process()
    return Held(
        files=me.num_fds(),
        threads=threading.active_count(),
        children=len(me.children(recursive=True)),
        memory_mib=me.memory_info().rss / MIB,
        shared=frozenset(path.name for path in Path("/dev/shm").iterdir()),
    )


def simulated() -> tuple[Deployment, Vllm]:
    return load_deployments()["simulated-fp8-8xh200-tp-ep"], CLIENT


def real() -> tuple[Deployment, Vllm]:
    return load_deployments()["rehearsal-tp-ep"], find_vllm()


def cycle(deployment: Deployment, vllm: Vllm, folder: Path) -> int:
    """One server, from launch to its end; its port."""
    server = launch(deployment, Profile.BENCHMARK, vllm, folder, redactor=Redactor())
    watch = ServerWatch(server, lambda error: print(error))
    assert server.custody is not None
    watch.stop()
    ended = server.custody.end(deployment.budgets.stop)
    assert ended.survivors == (), ended
    return int(server.base_url.rpartition(":")[2])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulated", type=int, default=0)
    parser.add_argument("--real", type=int, default=0)
    given = parser.parse_args()
    grown = 0
    for name, count, make in (
        ("simulated", given.simulated, simulated),
        ("real", given.real, real),
    ):
        if not count:
            continue
        deployment, vllm = make()
        with tempfile.TemporaryDirectory() as folder:
            cycle(deployment, vllm, Path(folder))  # what is loaded once
            before = held()
            for _ in range(count):
                cycle(deployment, vllm, Path(folder))
            after = held()
        new = after.shared - before.shared
        print(f"{name}, {count} cycles: {before} before, {after} after")
        shared = f", new in /dev/shm: {sorted(new) or 'nothing'}" if name == "real" else ""
        print(f"  {len(leftovers())} processes left{shared}")
        grown += (after.files, after.threads, after.children) > (
            before.files,
            before.threads,
            before.children,
        )
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
