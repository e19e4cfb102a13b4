"""A client waited in vain: is it the server, which generates nothing any more?

The watch finds a hang by the server's own counts, some seconds after the last token. A client may
give up before, and take its request with it, so that the counts show nothing to wait for.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx

from acceptance.errors import ObservationError, ServerError
from acceptance.serving.generation import generate
from acceptance.serving.metrics import GENERATED, scrape
from acceptance.serving.readiness import SETTLE, failure

if TYPE_CHECKING:
    from acceptance.serving.server import Server

LOOK = 5.0  # seconds that a server gets to tell of its tokens
IN_WORDS = re.compile(r"timed out|time-?out", re.IGNORECASE)  # httpx.ReadTimeout, and told of it


def waited_in_vain(error: BaseException | None) -> bool:
    """Whether somebody gave up waiting, by an error, by what it came of, or by what it says."""
    while error is not None:
        if isinstance(error, httpx.TimeoutException | TimeoutError) or IN_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def look_for_hang(server: Server) -> ServerError | None:
    """Asks every engine for a few tokens at once, and blocks no longer than the hang budget and
    SETTLE. None when a single one answers, and when tokens came for somebody else meanwhile: a
    server that is busy, and one with an engine that is stuck, do not hang as a whole."""
    if server.custody is None or server.ended is not None:
        return None
    hang = server.deployment.budgets.hang
    before, began = _tokens(server), time.monotonic()
    with ThreadPoolExecutor(server.deployment.layout.data) as pool:
        engines = range(server.deployment.layout.data)
        refused = list(pool.map(lambda _: _refused(server, hang), engines))
    errors = [error for error in refused if error is not None]
    if len(errors) < len(refused) or server.ended is not None:
        return None
    after = _tokens(server)
    if after is not None and after != before:
        return None
    waited = time.monotonic() - began
    time.sleep(SETTLE)
    why = f"a client waited in vain, and there was no token for {waited:.0f} s"
    return failure(server, f"is broken: {why}; {errors[0].happened}")


def _refused(server: Server, timeout: float) -> ServerError | None:
    try:
        generate(server, server.model, timeout=timeout)
    except ServerError as error:
        return error
    return None


def _tokens(server: Server) -> float | None:
    """Generated so far by all engines; None where the server does not tell. Prompts do not count:
    one that was just asked is no progress."""
    try:
        return scrape(server, timeout=LOOK).sum(GENERATED)
    except ObservationError:
        return None
