"""Every check can fail: for each, a server that breaks the one thing it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conformance_world import Check, World, checks, name_of, variants

import suites.conformance.test_bad_input as bad_input
from acceptance.conformance.deviations import deviations
from acceptance.conformance.refused import NO_REQUEST
from acceptance.deployments.schema import Accepted
from acceptance.errors import ServerError
from suites.conformance import (
    test_auth,
    test_chat,
    test_completions,
    test_control,
    test_deviations,
    test_fuzz,
    test_leaving,
    test_limits,
    test_liveness,
    test_log,
    test_logprobs,
    test_reasoning,
    test_rendering,
    test_streaming,
    test_structured,
    test_tools,
    test_unicode,
    test_usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAILED = (AssertionError, ServerError)
KINDS = ("chat", "completion")

BROKEN: dict[Check, tuple[str, ...]] = {
    test_liveness.test_health: ("health-503",),
    test_liveness.test_version_endpoint: ("version-is-a-page",),
    test_liveness.test_metrics: ("metric-missing",),
    test_liveness.test_no_admin_routes: ("admin-route",),
    test_liveness.test_other_apis_are_404: ("embeddings-500",),
    test_liveness.test_one_fingerprint: ("two-fingerprints",),
    test_liveness.test_routes_are_the_known_ones: ("route-gone", "new-open-route"),
    test_liveness.test_load: ("load-stays",),
    test_auth.test_no_key_is_refused: ("no-auth", "one-open-route"),
    test_auth.test_a_wrong_key_is_refused: ("no-auth", "any-key"),
    test_auth.test_the_key_is_accepted: ("deaf",),
    test_auth.test_open_routes_are_known: ("new-open-route",),
    test_auth.test_foreign_origins_are_not_trusted: ("trusts-everybody",),
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
    test_completions.test_seeds_of_long_prompts: ("dies-of-seeds",),
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
    test_streaming.test_continuous_usage: ("usage-not-continuous", "usage-shrinks"),
    test_streaming.test_bytes_split_anywhere: ("bytes-are-no-text", "stream-is-refused"),
    test_streaming.test_two_choices: ("index-lost", "n-ignored", "only-bos"),
    test_usage.test_usage: ("prompt-count-off", "completion-count-off", "total-off", "no-usage"),
    test_limits.test_ignore_eos_runs_to_the_cap: ("eos-not-ignored",),
    test_limits.test_stop_string_never_leaks_into_a_stream: ("stop-leaks", "stop-ignored"),
    test_limits.test_natural_end: ("never-stops",),
    test_limits.test_stop_token: ("stop-token-ignored", "stop-reason-missing"),
    test_limits.test_min_tokens: ("min-tokens-ignored",),
    test_limits.test_longest_prompt: ("limit-refused", "prompt-cut"),
    test_limits.test_overlong_prompt: ("overlong-accepted", "refusals-are-pages"),
    bad_input.test_unknown_model: ("accepts-anything",),
    bad_input.test_no_request: ("accepts-anything",),
    bad_input.test_out_of_range: ("accepts-anything",),
    bad_input.test_scores_out_of_range: ("accepts-anything",),
    bad_input.test_token_ids: ("accepts-anything",),
    bad_input.test_no_text: ("accepts-anything",),
    bad_input.test_image: ("accepts-anything",),
    bad_input.test_constraint_is_none: ("accepts-anything",),
    bad_input.test_tools_are_none: ("accepts-anything",),
    bad_input.test_errors_leak_nothing: ("errors-leak",),
    test_control.test_logit_bias_forces: ("bias-ignored",),
    test_control.test_logit_bias_forbids: ("bias-ignored",),
    test_control.test_allowed_token_ids: ("allowed-ignored",),
    test_control.test_bad_words: ("bad-words-ignored",),
    test_control.test_sampling_defaults: ("vllm-defaults", "unstable"),
    test_fuzz.test_fuzz_ends_nothing: ("dies-of-odd-input",),
    test_fuzz.test_fuzz_brings_no_error: ("dies-of-odd-input",),
    test_leaving.test_leaving_frees: ("keeps-the-dead",),
    test_leaving.test_leaving_while_waiting: ("keeps-the-dead",),
    test_leaving.test_over_capacity_waits: ("busy",),
    test_leaving.test_books_agree: ("counts-nothing",),
    test_reasoning.test_reasoning_and_content: (
        *("no-reasoning-parser", "thinks-twice", "thinks-not", "answers-nothing"),
    ),
    test_reasoning.test_cut_off_in_reasoning: ("no-reasoning-parser",),
    test_reasoning.test_field_of_reasoning: ("old-reasoning-field", "text-in-old-field"),
    test_reasoning.test_stream_reasons_first: ("thinks-after-content", "stream-drops-a-token"),
    test_reasoning.test_reasoning_is_hidden: ("reasoning-not-hidden", "no-reasoning-parser"),
    test_reasoning.test_thinking_budget: ("budget-ignored", "never-done-thinking"),
    test_reasoning.test_reasoning_tokens_are_counted: ("reasoning-uncounted",),
    test_reasoning.test_only_reasoning: ("answers-nothing",),
    test_reasoning.test_no_reasoning: ("thinks-not",),
    test_rendering.test_begun_answer_goes_on: ("closes-what-goes-on",),
    test_rendering.test_former_reasoning_is_left_out: ("feeds-thoughts-back",),
    test_rendering.test_text_gets_one_bos: ("tokenizer-adds-bos", "second-bos"),
    test_structured.test_json_schema: ("constraints-ignored", "never-done-thinking"),
    test_structured.test_constraint: ("constraints-ignored",),
    test_structured.test_json_object: ("constraints-ignored",),
    test_structured.test_reasoning_is_free: ("constrains-thoughts", "constraints-ignored"),
    test_structured.test_cut_off_before_a_constraint: ("no-reasoning-parser",),
    test_tools.test_tools_are_taken: ("tools-refused",),
    test_tools.test_tools_reach_the_model: ("hides-tools",),
    test_tools.test_calls_are_parsed: (
        *("calls-nothing", "no-tool-parser", "one-call-id", "arguments-cut", "calls-say-stop"),
        "calls-unknown-tool",
    ),
    test_tools.test_streamed_calls: ("streamed-arguments-cut", "calls-nothing", "runs-together"),
    test_tools.test_calls_in_one_chunk: ("runs-together", "ran-together"),
    test_tools.test_tool_choice: ("choice-ignored",),
    test_tools.test_several_calls: ("one-call-id", "arguments-cut"),
    test_tools.test_result_is_taken: ("drops-results",),
    test_tools.test_no_raw_tool_token: ("no-tool-parser", "raw-call-stays"),
    test_tools.test_right_tool: ("calls-nothing",),
    test_tools.test_tools_and_reasoning: ("thinks-not", "calls-nothing"),
    test_logprobs.test_echo_scores_the_prompt: ("echo-dropped", "one-log-too-few"),
    test_logprobs.test_logprob_token_ids: ("ids-not-listed",),
    test_logprobs.test_completion_logprobs: (
        *("logprobs-positive", "logprobs-one-missing", "offsets-off-by-one"),
    ),
    test_logprobs.test_prompt_logprobs: ("prompt-logprobs-shifted",),
}
# What informs by a number: what it is of the broken server.
COUNTS: dict[Check, list[float]] = {
    test_reasoning.test_only_reasoning: [1.0],
    test_reasoning.test_no_reasoning: [1.0],
    test_tools.test_right_tool: [0.0, 0.0],
}
ALONE: tuple[Check, ...] = (
    test_auth.test_open_routes_are_accepted,
    test_auth.test_listens_on_loopback,
    test_auth.test_other_sockets,
    test_log.test_the_key_is_not_logged,
)
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
        (test_logprobs.test_chat_logprobs, f"logprobs-{word}", {"top": top})
        for word in (*("positive", "unsorted", "over-one", "not-greedy", "one-missing", "too-few"),)
        for top in (5, 20)
    ),
    (test_logprobs.test_chat_logprobs, "bytes-of-another-token", {"top": 5}),
    (test_logprobs.test_chat_logprobs, "logprobs-unasked", {"top": 0}),
    (test_rendering.test_conversation, "drops-system", {"name": "system"}),
    (test_rendering.test_conversation, "renders-otherwise", {"name": "turns"}),
    (test_unicode.test_text_survives, "characters-lost", {"name": "emoji"}),
    (test_unicode.test_text_survives, "characters-lost-in-stream", {"name": "Chinese"}),
    (test_unicode.test_text_survives, "detokenize-cuts", {"name": "Arabic"}),
    (bad_input.test_hostile, "dies-of-odd-input", {"name": "a megabyte of garbage"}),
    *(
        (test_deviations.test_deviation, word, {"deviation": deviation})
        for word, deviation in zip(
            ("old-reasoning-field", "accepts-anything"),
            (deviations()[0], deviations()[12]),
            strict=True,
        )
    ),
    *(
        (bad_input.test_no_request, word, {"refusal": refusal})
        for word in (
            *("refusals-are-pages", "refusals-are-500", "refusals-are-mute"),
            *("dies-of-bad-input", "slow-refusals"),
        )
        for refusal in NO_REQUEST[:2]
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
    worlds: Callable[[str], World],
    monkeypatch: pytest.MonkeyPatch,
    check: Check,
    word: str,
    params: dict[str, Any],
) -> None:
    monkeypatch.setattr(bad_input, "QUICK", 0.02 if word == "slow-refusals" else 5.0)
    monkeypatch.setattr(test_leaving, "RELEASE", 0.1)
    monkeypatch.setattr(test_leaving, "PATIENCE", 0.5)
    must_be_caught(worlds(word), check, params)


def must_be_caught(world: World, check: Check, params: dict[str, Any]) -> None:
    """A gate fails; what informs shows another value than it should, or than a healthy server."""
    world.shown.clear()
    if not getattr(check, "informs", False) and check is not test_auth.test_other_sockets:
        with pytest.raises(FAILED):
            world.run(check, **params)
        return
    world.run(check, **params)
    if check in COUNTS:
        assert [one.measurement.value for one in world.shown] == COUNTS[check]
    else:
        assert any(one.outcome != "PASS" for one in world.shown)


def test_an_open_route_that_nobody_accepted(world: World) -> None:
    """As vLLM 0.32 is: /invocations answers a chat without the key."""
    world.deployment = world.deployment.model_copy(update={"accepted": Accepted()})
    must_be_caught(world, test_auth.test_open_routes_are_accepted, {})


def test_a_call_lost_once_in_one_chunk(worlds: Callable[[str], World]) -> None:
    """A busy server handed a whole call over at once: asked again, it is seen to parse well."""
    world = worlds("ran-together")
    must_be_caught(world, test_tools.test_calls_in_one_chunk, {})
    world.run(test_tools.test_streamed_calls)


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_server_for_everybody(
    world: World, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    port = int(world.twin.url.rpartition(":")[2])
    monkeypatch.setattr(test_auth, "_listening", lambda _: [(address, port), (address, port + 1)])
    must_be_caught(world, test_auth.test_listens_on_loopback, {})
    must_be_caught(world, test_auth.test_other_sockets, {})


@pytest.mark.parametrize("line", ["args: {{'api_key': '{}'}}", "GET /v1/models?key={} 200"])
def test_a_log_with_the_key_in_it(world: World, tmp_path: Path, line: str) -> None:
    """It is told by the line's number alone: what is recorded goes out with the report."""
    world.log = tmp_path / "server.log"
    world.log.write_text("starting\n" + line.format("the-key") + "\nready\n")
    with pytest.raises(AssertionError, match=r"server\.log holds the API key: line 2") as caught:
        world.run(test_log.test_the_key_is_not_logged)
    assert "the-key" not in f"{caught.value} {world.recorded}"


def test_a_log_that_is_not_here_says_nothing_of_keys(world: World) -> None:
    world.log, world.launched = None, False
    with pytest.raises(pytest.skip.Exception, match="log is not observable"):
        world.run(test_log.test_the_key_is_not_logged)


def test_every_check_is_shown_to_fail() -> None:
    """Those of the live configuration are in test_conformance_live.py."""
    shown = {name_of(check) for check, _, _ in CASES}
    shown |= {name_of(check) for check in ALONE}
    expected = {name_of(check) for check in checks()}
    assert {name for name in expected - shown if "live_config" not in name} == set()
