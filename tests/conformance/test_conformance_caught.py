"""Every check can fail: for each, a server that breaks the one thing it looks at."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_world import Check, World, checks, name_of, variants

import suites.conformance.test_bad_input as bad_input
from acceptance.conformance.refusals import REFUSALS
from acceptance.errors import ServerError
from suites.conformance import (
    test_auth,
    test_chat,
    test_completions,
    test_limits,
    test_liveness,
    test_logprobs,
    test_streaming,
    test_usage,
)

FAILED = (AssertionError, ServerError)
KINDS = ("chat", "completion")

BROKEN: dict[Check, tuple[str, ...]] = {
    test_liveness.test_health: ("health-503",),
    test_liveness.test_version_endpoint: ("version-is-a-page",),
    test_liveness.test_metrics: ("metric-missing",),
    test_liveness.test_no_admin_routes: ("admin-route",),
    test_liveness.test_other_apis_are_404: ("embeddings-500",),
    test_auth.test_no_key_is_refused: ("no-auth", "one-open-route"),
    test_auth.test_a_wrong_key_is_refused: ("no-auth", "any-key"),
    test_auth.test_the_key_is_accepted: ("deaf",),
    test_auth.test_open_routes_are_known: ("new-open-route",),
    test_chat.test_shape: ("only-bos", "never-finished", "wrong-role", "model-not-echoed"),
    test_chat.test_openai_client: ("deaf", "no-usage", "only-bos"),
    test_chat.test_greedy_repeats: ("unstable",),
    test_chat.test_max_completion_tokens: ("max-completion-tokens-ignored", "one-token-short"),
    test_chat.test_several_choices: ("n-ignored", "index-lost", "completion-count-off"),
    test_completions.test_shape: ("only-bos", "never-finished", "model-not-echoed"),
    test_completions.test_token_prompt: ("second-bos",),
    test_completions.test_prompt_list: ("choices-unordered", "index-lost"),
    test_completions.test_echo: ("echo-dropped", "unstable"),
    test_completions.test_seed: ("seed-ignored", "temperature-ignored"),
    test_streaming.test_form: (
        *("no-done", "done-twice", "two-ids", "stream-cut", "stream-not-json", "stream-error"),
        *("finishes-twice", "delta-after-finish", "last-event-unfinished", "stream-is-a-page"),
    ),
    test_streaming.test_equals_whole_answer: ("stream-drops-a-token", "unstable", "only-bos"),
    test_streaming.test_usage_when_asked: (
        *("no-usage-chunk", "usage-in-every-chunk", "usage-chunk-has-choices"),
        *("completion-count-off", "total-off"),
    ),
    test_streaming.test_no_usage_unasked: ("usage-in-every-chunk",),
    test_streaming.test_two_choices: ("index-lost", "n-ignored", "only-bos"),
    test_usage.test_usage: ("prompt-count-off", "completion-count-off", "total-off", "no-usage"),
    test_limits.test_ignore_eos_runs_to_the_cap: ("eos-not-ignored",),
    test_limits.test_stop_string_never_leaks_into_a_stream: ("stop-leaks", "stop-ignored"),
    test_limits.test_longest_prompt: ("limit-refused", "prompt-cut"),
    test_limits.test_overlong_prompt: ("overlong-accepted", "refusals-are-pages"),
    bad_input.test_refused: ("accepts-anything",),
    test_logprobs.test_chat_logprobs: (
        *("logprobs-positive", "logprobs-unsorted", "logprobs-over-one", "logprobs-not-greedy"),
        *("logprobs-one-missing", "logprobs-too-few", "bytes-of-another-token"),
    ),
    test_logprobs.test_completion_logprobs: (
        *("logprobs-positive", "logprobs-one-missing", "offsets-off-by-one"),
    ),
    test_logprobs.test_prompt_logprobs: ("prompt-logprobs-shifted",),
}
# Breaks that show in one variant of a check and not in another.
PARTLY: list[tuple[Check, str, dict[str, Any]]] = [
    (test_limits.test_max_tokens, "one-token-short", {"kind": "chat", "cap": 7}),
    (test_limits.test_max_tokens, "completion-count-off", {"kind": "completion", "cap": 1}),
    (test_limits.test_stop_string, "stop-kept", {"included": False}),
    (test_limits.test_stop_string, "stop-ignored", {"included": True}),
    (test_limits.test_stop_string, "stop-reason-missing", {"included": False}),
    (test_limits.test_overlong_prompt, "limit-unnamed", {"over": 1}),
    (test_streaming.test_form, "no-role", {"kind": "chat"}),
    (test_streaming.test_equals_whole_answer, "text-in-old-field", {"kind": "chat"}),
    (test_usage.test_prompt_is_rendered_alike, "renders-otherwise", {"kind": "chat"}),
    (test_usage.test_prompt_is_rendered_alike, "second-bos", {"kind": "completion"}),
    *(
        (bad_input.test_refused, word, {"refusal": refusal})
        for word in (
            *("refusals-are-pages", "refusals-are-500", "refusals-are-mute"),
            *("dies-of-bad-input", "slow-refusals"),
        )
        for refusal in REFUSALS[:4]
    ),
]
CASES = [
    (check, word, params)
    for check, words in BROKEN.items()
    for word in words
    for params in variants(check)
] + PARTLY


def _id(value: object) -> str:
    if callable(value):
        return name_of(value)
    if isinstance(value, dict):
        return "-".join(getattr(v, "name", str(v)) for v in value.values())
    return str(value)


@pytest.mark.parametrize(("check", "word", "params"), CASES, ids=_id)
def test_caught(
    world: World, monkeypatch: pytest.MonkeyPatch, check: Check, word: str, params: dict[str, Any]
) -> None:
    monkeypatch.setattr(bad_input, "QUICK", 0.05 if word == "slow-refusals" else 5.0)
    world.twin.breaks.add(word)
    with pytest.raises(FAILED):
        world.run(check, **params)


def test_every_check_is_shown_to_fail() -> None:
    """Those of the live configuration are in test_conformance_live.py."""
    shown = {name_of(check) for check, _, _ in CASES}
    expected = {name_of(check) for check in checks()}
    assert {name for name in expected - shown if "live_config" not in name} == set()
