"""The command that serves a deployment: the recipe's own words first, then what the suite adds."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.deployments.recipe import translate
from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packaging.version import Version

    from acceptance.deployments.schema import Deployment, Profile

VISIBLE = "CUDA_VISIBLE_DEVICES"
WHOLE_NODE = 8  # GPUs; a deployment that takes fewer names the ones it takes, as the recipe does


@dataclass(frozen=True)
class ServerCommand:
    """argv: starts with "vllm", "serve". env: additions to the environment, the API key not
    among them. recipe: the words of the recipe's command. notes: see Translation."""

    argv: tuple[str, ...]
    env: dict[str, str]
    recipe: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def run_by(self, vllm: Sequence[str]) -> tuple[str, ...]:
        """argv with "vllm" replaced by the words that start the installed one."""
        return (*vllm, *self.argv[1:])

    def shell(self) -> str:
        """What a person pastes into a shell: exports, then one line that begins with the
        recipe's command word for word."""
        exports = [
            f"export {name}={shlex.quote(value)}"
            for name, value in self.env.items()
            if name != VISIBLE
        ]
        words = sum(1 for word in self.recipe if not word.startswith(f"{VISIBLE}="))
        return "\n".join([*exports, shlex.join([*self.recipe, *self.argv[words:]])])


def render(
    deployment: Deployment,
    profile: Profile,
    version: Version,
    *,
    host: str = "127.0.0.1",
    port: int,
    model: str | None = None,
    gpus: Sequence[str] | None = None,
) -> ServerCommand:
    """The command for this vLLM version. host: vLLM's own default is every interface.

    model: path of the checkpoint where it is not fetched by name; the served name stays the
    deployment's model. gpus: indices or UUIDs of leased GPUs; without them a deployment that
    takes part of a node takes its first GPUs. Raises InputError for what this version cannot do,
    and for another number of GPUs than the deployment has.
    """
    translation = translate(deployment, profile, version)
    visible = _visible(deployment, gpus)
    layout = deployment.layout
    argv = ["vllm", "serve", model or deployment.model, "--trust-remote-code"]
    if layout.tensor > 1 or layout.ranks == 1:
        argv += ["--tensor-parallel-size", str(layout.tensor)]
    if layout.data > 1:
        argv += ["--data-parallel-size", str(layout.data)]
    if layout.expert:
        argv += ["--enable-expert-parallel"]
    recipe = ([f"{VISIBLE}={visible}"] if visible else []) + argv
    added = ["--host", host, "--port", str(port)]
    if model is not None:
        added += ["--served-model-name", deployment.model]
    if deployment.tokenizer:
        added += ["--tokenizer", deployment.tokenizer]
    return ServerCommand(
        argv=(*argv, *added, *translation.flags),
        env={**({VISIBLE: visible} if visible else {}), **translation.env},
        recipe=tuple(recipe),
        notes=translation.notes,
    )


def _visible(deployment: Deployment, gpus: Sequence[str] | None) -> str:
    """Value of CUDA_VISIBLE_DEVICES; empty for none."""
    count = deployment.gpus.count
    if gpus is None:
        return ",".join(map(str, range(count))) if count < WHOLE_NODE else ""
    if len(gpus) != count or len(set(gpus)) != count:
        raise InputError(
            f"{deployment.name} takes {count} GPUs, and was given {len(gpus)}: "
            f"{', '.join(gpus) or 'none'}",
            asked="rendering its command",
        )
    return ",".join(gpus)
