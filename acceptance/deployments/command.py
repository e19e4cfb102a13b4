"""The command that serves a deployment: the recipe's own words first, then what the suite adds."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from acceptance.deployments.nodes import Node, Site, on_node, spread_words
from acceptance.deployments.recipe import translate
from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packaging.version import Version

    from acceptance.deployments.layout import Layout
    from acceptance.deployments.schema import Deployment, Profile

VISIBLE = "CUDA_VISIBLE_DEVICES"
WHOLE_NODE = 8  # GPUs; a deployment that takes fewer names the ones it takes, as the recipe does


@dataclass(frozen=True)
class ServerCommand:
    """argv: starts with "vllm", "serve". env: additions to the environment, the API key not
    among them. recipe: the words of the recipe's command. notes: see Translation. others: those
    of the other nodes, where this is the head's of several."""

    argv: tuple[str, ...]
    env: dict[str, str]
    recipe: tuple[str, ...]
    notes: tuple[str, ...] = ()
    others: tuple[ServerCommand, ...] = ()

    def run_by(self, vllm: Sequence[str]) -> tuple[str, ...]:
        """argv with "vllm" replaced by the words that start the installed one."""
        return (*vllm, *self.argv[1:])

    def shell(self) -> str:
        """What a person pastes into a shell: exports, then one line that begins with the
        recipe's command word for word. Of several nodes, each under a line that says which."""
        if not self.others:
            return self._alone()
        nodes = (self, *self.others)
        return "\n".join(f"# node {rank}\n{one._alone()}" for rank, one in enumerate(nodes))

    def _alone(self) -> str:
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
    """The command for this vLLM version, of a deployment on one node. host: vLLM's own default is
    every interface.

    model: path of the checkpoint where it is not fetched by name; the served name stays the
    deployment's model. gpus: indices or UUIDs of leased GPUs; without them a deployment that
    takes part of a node takes its first GPUs. Raises InputError for what this version cannot do,
    and for another number of GPUs than the deployment has.
    """
    node = Node(host, gpus=None if gpus is None else tuple(gpus))
    return render_nodes(
        deployment, profile, version, site=Site((node,), port=port, host=host), model=model
    )


def render_nodes(
    deployment: Deployment,
    profile: Profile,
    version: Version,
    *,
    site: Site,
    model: str | None = None,
) -> ServerCommand:
    """The head's command, those of the other nodes in it; otherwise as render. Raises InputError
    also for a site of another number of nodes than the deployment has."""
    wanted = deployment.layout.nodes
    if len(site.nodes) != wanted:
        raise InputError(
            f"{deployment.name} runs on {wanted} nodes, and was given {len(site.nodes)}",
            asked="rendering its commands",
        )
    head, *others = (_render(deployment, profile, version, site, n, model) for n in range(wanted))
    return replace(head, others=tuple(others))


def _render(
    deployment: Deployment,
    profile: Profile,
    version: Version,
    site: Site,
    number: int,
    model: str | None,
) -> ServerCommand:
    deployment, node = on_node(deployment, number), site.nodes[number]
    translation = translate(deployment, profile, version)
    visible = _visible(deployment, node.gpus)
    argv = ["vllm", "serve", model or deployment.model, "--trust-remote-code"]
    argv += _layout_words(deployment.layout, site, number)
    recipe = ([f"{VISIBLE}={visible}"] if visible else []) + argv
    added = [] if number else ["--host", site.host, "--port", str(site.port)]
    if model is not None:
        added += ["--served-model-name", deployment.model]
    if deployment.tokenizer:
        added += ["--tokenizer", deployment.tokenizer]
    return ServerCommand(
        argv=(*argv, *added, *translation.flags),
        env={
            **({VISIBLE: visible} if visible else {}),
            **(node.env() if deployment.layout.nodes > 1 else {}),
            **translation.env,
        },
        recipe=tuple(recipe),
        notes=translation.notes,
    )


def _layout_words(layout: Layout, site: Site, node: int) -> list[str]:
    words = []
    if layout.tensor > 1 or layout.ranks == 1:
        words += ["--tensor-parallel-size", str(layout.tensor)]
    if layout.pipeline > 1:
        words += ["--pipeline-parallel-size", str(layout.pipeline)]
    if layout.data > 1:
        words += ["--data-parallel-size", str(layout.data)]
    words += spread_words(layout, site, node)
    return words + (["--enable-expert-parallel"] if layout.expert else [])


def _visible(deployment: Deployment, gpus: Sequence[str] | None) -> str:
    """Value of CUDA_VISIBLE_DEVICES on one node; empty for none."""
    nodes = deployment.layout.nodes
    count = deployment.gpus.count // nodes
    if gpus is None:
        return ",".join(map(str, range(count))) if count < WHOLE_NODE else ""
    if len(gpus) != count or len(set(gpus)) != count:
        raise InputError(
            f"{deployment.name} takes {count} GPUs{' of each node' if nodes > 1 else ''}, and was "
            f"given {len(gpus)}: {', '.join(gpus) or 'none'}",
            asked="rendering its command",
        )
    return ",".join(gpus)
