"""What the correctness checks share: the texts, what the server says of them, its noise floor.

Everything here is asked once for a deployment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from packaging.version import Version

from acceptance.correctness.account import Account
from acceptance.correctness.compare import agreement
from acceptance.correctness.floor import Floor
from acceptance.correctness.golden import Golden
from acceptance.correctness.ranks import cache_labels
from acceptance.correctness.scoring import Scored, greedy, score, tokenize
from acceptance.correctness.strata import Shape, long_lengths
from acceptance.correctness.texts import corpus, joined
from acceptance.deployments.schema import Lane
from acceptance.load.workloads import Tier
from acceptance.serving.client import client, kept
from acceptance.serving.live import read_live
from fixtures.correctness import GOLDEN_PART, binding_of, folder_of, golden_for
from fixtures.judging import not_applicable
from fixtures.selection import SELECTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.live import LiveConfig
    from acceptance.serving.server import Server
    from fixtures.run import Run

# Texts that are scored: as many as each lane affords.
TEXTS = {Lane.FULL: 200, Lane.SLICE: 24, Lane.REHEARSAL: 16, Lane.SIMULATED: 8}
SMOKE = 48  # at most, in the smoke tier
# Log-probabilities of a prompt are computed 1024 positions at a time since vLLM's second model
# runner; before, a chunk of 16384 tokens took 8.5 GB of them at once (16384 x 129280 x 4 bytes).
SCORES_IN_PIECES = Version("0.32")
LONGEST = 512  # tokens of a text, but for those that reach far into the context
CONTINUED = 12  # texts that are continued greedily
START = 24  # tokens of them that are given
PAGE = 16  # tokens of a KV block where the server does not tell


@pytest.fixture(scope="session", autouse=True)
def weights_that_mean_something(deployment: Deployment) -> None:
    """Leaves correctness out where there is nothing to be correct about."""
    if deployment.dummy_weights:
        not_applicable("dummy weights: their tokens mean nothing")


@pytest.fixture(scope="session")
def bulk(server: Server) -> Iterator[httpx.Client]:
    """A client for many requests at once."""
    timeout = 4 * server.deployment.budgets.request  # each may wait for those before it
    with client(server, timeout, limits=kept(1024)) as made:
        yield made


@pytest.fixture(scope="session")
def config(server: Server) -> LiveConfig:
    """What the server says it is."""
    return read_live(server)


@pytest.fixture(scope="session")
def shape(server: Server, bulk: httpx.Client, config: LiveConfig) -> Shape:
    """Where the borders of pages and chunks lie, and how long a request may be."""
    lengths = {model.id: model.max_model_len for model in config.models}
    length = lengths.get(server.model) or server.deployment.options.max_model_len
    assert length, f"/v1/models tells no max_model_len of {server.model}"
    told = [labels.get("block_size", "") for labels in cache_labels(bulk, server)]
    page = next((int(size) for size in told if size.isdigit()), PAGE)
    chunk = server.deployment.options.max_num_batched_tokens or length
    return Shape(page=page, chunk=chunk, length=length)


@pytest.fixture(scope="session")
def prompts(
    server: Server, bulk: httpx.Client, shape: Shape, pytestconfig: pytest.Config
) -> dict[str, list[int]]:
    """The texts as token ids, the long ones last."""
    lane, tier = server.deployment.lane, Tier(pytestconfig.option.tier)
    count = min(TEXTS[lane], SMOKE) if tier is Tier.SMOKE else TEXTS[lane]
    most = min(LONGEST, shape.length // 2)
    found = {n: tokenize(bulk, server.model, t)[:most] for n, t in corpus(count).items()}
    for length in long_lengths(shape) if server.version >= SCORES_IN_PIECES else ():
        text = joined(count, seed=length)
        tokens = tokenize(bulk, server.model, text)
        while len(tokens) < length:
            tokens += tokens[1:]
        found[f"long-{length}"] = tokens[:length]
    return found


@pytest.fixture(scope="session")
def scored(server: Server, bulk: httpx.Client, prompts: dict[str, list[int]]) -> list[Scored]:
    """What the server says of every token of the texts, several asked at a time."""
    return score(bulk, server.model, prompts)


@pytest.fixture(scope="session")
def floor(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    prompts: dict[str, list[int]],
    scored: list[Scored],
) -> Floor:
    """What the server differs from itself by: asked again, and each text alone. Ranks and the
    checkpoint's own precision join it where they are measured."""
    made = Floor(deployment.precision)
    made.parts["repeat"] = agreement(scored, score(bulk, server.model, prompts))
    made.parts["batch"] = agreement(scored, score(bulk, server.model, prompts, concurrent=1))
    return made


@pytest.fixture(scope="session")
def account(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    scored: list[Scored],
    prompts: dict[str, list[int]],
    run: Run,
    pytestconfig: pytest.Config,
) -> Account:
    """Log-probabilities and greedy continuations, kept for other layouts and later runs."""
    short = {n: tokens[:START] for n, tokens in list(prompts.items())[:CONTINUED]}
    tokens = 256 if deployment.lane is Lane.FULL else 64
    made = Account(scored, greedy(bulk, server.model, short, tokens, concurrent=CONTINUED))
    binding = binding_of(server.model_path)
    if binding is not None and deployment.lane is not Lane.SIMULATED:
        Golden(
            deployment=deployment.name,
            layout=deployment.layout.label,
            model=deployment.model,
            vllm=str(server.version),
            binding=binding,
            account=made,
        ).write(folder_of(run.run_dir) / f"{deployment.name}{GOLDEN_PART}")
    return made


@pytest.fixture(scope="session")
def other_layouts(
    deployment: Deployment, account: Account, run: Run, request: pytest.FixtureRequest
) -> dict[str, Account]:
    """Accounts of other layouts of the same checkpoint that were taken before this one in this run.
    Whichever layout runs last compares."""
    siblings = [
        other.name
        for other in request.config.stash[SELECTION].chosen
        if other.model == deployment.model and other.name != deployment.name
    ]
    if not siblings:
        not_applicable("no other layout of this checkpoint is part of the run")
    folder = folder_of(run.run_dir)
    with FileLock(folder / "accounts.lock"):
        account.write(folder / f"{deployment.name}.json")
        paths = {name: folder / f"{name}.json" for name in siblings}
        taken = {name: Account.read(path) for name, path in paths.items() if path.exists()}
    if not taken:
        not_applicable(f"compared when {', '.join(siblings)} has run too")
    return taken


@pytest.fixture(scope="session")
def golden(deployment: Deployment, pytestconfig: pytest.Config) -> Golden:
    """The golden record that the run was given for this checkpoint."""
    found = golden_for(pytestconfig, deployment)
    if found is None:
        if pytestconfig.option.golden is not None:
            not_applicable("checkpoint is not observable and was waived")
        not_applicable("no golden record was given (--golden FILE)")
    return found
