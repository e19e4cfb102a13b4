"""What the server wrote down of its start and of every request of conformance, the bad ones
included: this runs when they have all been asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.secrets import lines_with
from fixtures.judging import not_applicable, unobservable
from suites.conformance.holding import specified

if TYPE_CHECKING:
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck


def test_the_key_is_not_logged(server: Server, record_check: RecordCheck) -> None:
    """The server's log does not hold its API key, in no form: logs are kept, shipped and read by
    people who may not ask the server anything. It is looked for in the log as it was written;
    what this suite keeps of it is masked, and no record holds more than numbers of lines.

    Does not prove that it is not logged later, nor what a proxy logs, nor that vLLM's caches are
    free of it. Would have caught vllm PR#52523: the line of a start's arguments told the key.
    """
    if not server.api_key:
        not_applicable("the server has no key")
    if not server.logs:
        unobservable("log", "whether the server logs its key is told by its log alone")
    found = {log.name: lines_with(log, server.api_key) for log in server.logs}
    told = {name: ", ".join(map(str, lines)) for name, lines in found.items() if lines}
    problems = [f"{name} holds the API key: line {lines}" for name, lines in told.items()]
    specified(record_check, problems)
