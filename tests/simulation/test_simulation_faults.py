"""Faults: read strictly, and each visible where it should be."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from simulation_world import KEY, PATIENCE, Running, running, simulated

from acceptance.errors import InputError
from acceptance.serving.window import read_window
from acceptance.simulation.faults import Faults, presets, read_faults
from acceptance.simulation.flags import parse
from acceptance.simulation.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IN_STARTS = {"silent_at", "spins", "exits_at", "runs_out_at", "start_seconds"}
SPEED = {"prefill", "decode", "step", "from_batch", "noise", "seed", "cold_seconds"}


def test_an_honest_server_is_the_default() -> None:
    assert read_faults(None) == read_faults("") == Faults()


def test_presets_turn_knobs_that_exist_and_say_what_they_show() -> None:
    for name, preset in presets().items():
        assert read_faults(json.dumps({"fault": name})) != Faults(), name
        assert preset.why, name
        assert preset.shows, name


def test_a_single_knob_overrides_a_preset() -> None:
    found = read_faults('{"fault": "slow-20", "step": 1.5, "seed": 3}')
    assert (found.step, found.seed) == (1.5, 3)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "3", '{"fault": "no-such"}', '{"decoed": 2}', '{"decode": -1}', '{"fail": 2}'],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_faults(text)
    assert text in caught.value.asked


def test_every_knob_is_turned_by_a_preset_or_a_test() -> None:
    turned = {knob for preset in presets().values() for knob in preset.knobs}
    assert set(Faults.model_fields) - turned - SPEED - IN_STARTS == {
        *("least_tokens", "unstable", "jit_every", "lost_metrics"),
        *("outlives", "keep_aborted", "ghosts", "stuck_engine", "stuck_after", "kv_usable"),
        "leak_requests",
    }


def ask(server: Running, count: int = 4, **body: Any) -> list[httpx.Response]:
    return [server.complete(max_tokens=10, ignore_eos=True, **body) for _ in range(count)]


def fails(server: Running) -> None:
    assert server.complete(max_tokens=4).status_code == 200  # its watch is answered
    assert {answer.status_code for answer in ask(server)} == {500}


def fails_sometimes(server: Running) -> None:
    assert [a.status_code for a in ask(server, 20)].count(500) == 2


def breaks_off(server: Running) -> None:
    [answer] = ask(server, 1, stream=True)
    assert answer.text.count('"text"') == 1
    assert "InternalServerError" in answer.text


def ends_early(server: Running) -> None:
    assert ask(server, 1)[0].json()["usage"]["completion_tokens"] == 8


def hits_the_cache(server: Running) -> None:
    ask(server, 1, prompt="x" * 100)
    assert server.metrics().sum("vllm:prefix_cache_hits_total") == 80


def compiles(server: Running) -> None:
    before = server.log.stat().st_size
    ask(server)
    assert read_window(server.log, before).jit_count == 4
    assert (
        server.truth()["requests"][0]["scheduled"][0] - server.truth()["requests"][0]["arrived"]
        > 0.05
    )


def logs_errors(server: Running) -> None:
    before = server.log.stat().st_size
    ask(server, 10)
    assert read_window(server.log, before).error_count == 2


def starves(server: Running) -> None:
    ask(server, 1, n=8, temperature=1)
    shares = server.metrics().by_engine("vllm:generation_tokens_total")
    assert shares["1"] == 0
    assert sum(shares.values()) == 80


def halves_the_cache(server: Running) -> None:
    told = int(server.metrics().labels("vllm:cache_config_info")[0]["kv_cache_size_tokens"])
    assert told == pytest.approx(sum(server.phases().facts.kv_cache_tokens.values()), rel=0.02)
    available = next(iter(server.phases().facts.available_kv_gib.values())) * 2**30
    assert told * 70272 == pytest.approx(available / 2, rel=0.02)


def hangs(server: Running) -> None:
    ask(server, 2)
    with pytest.raises(httpx.ReadTimeout), server.client as client:
        client.post(
            "/v1/completions",
            json={"model": server.model, "prompt": "x", "max_tokens": 10},
            timeout=1,
        )
    assert httpx.get(f"{server.url}/health").status_code == 200


def dies(server: Running) -> None:
    with pytest.raises(httpx.HTTPError):
        ask(server, 4)
    assert server.process.wait(PATIENCE) == 1
    assert "EngineCore encountered a fatal error" in server.text


def gathers_tokens(server: Running) -> None:
    [answer] = ask(server, 1, stream=True)
    assert answer.text.count('"text"') == 5


def says_another_layout(server: Running) -> None:
    assert "-tp8-" in server.complete().json()["system_fingerprint"]
    assert "-ep-" not in server.complete().json()["system_fingerprint"]


def asks_nobody(server: Running) -> None:
    assert httpx.get(f"{server.url}/v1/models").status_code == 200


def repeats_nothing(server: Running) -> None:
    assert len({answer.json()["choices"][0]["text"] for answer in ask(server)}) > 1


def loses_a_metric(server: Running) -> None:
    names = {sample.name for sample in server.metrics().samples}
    assert "vllm:generation_tokens_total" not in names
    assert "vllm:prompt_tokens_total" in names


def jits_now_and_then(server: Running) -> None:
    before = server.log.stat().st_size
    ask(server, 6)
    assert read_window(server.log, before).jit_count == 2


def outlives_its_engine(server: Running) -> None:
    assert [answer.status_code for answer in ask(server)] == [200, 200, 500, 500]
    assert server.complete(max_tokens=1).status_code == 500
    assert httpx.get(f"{server.url}/health").status_code == 200


def forgets_nobody(server: Running) -> None:
    body = {"model": server.model, "prompt": "x", "max_tokens": 500, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout), server.client as client:
        client.post("/v1/completions", json=body, timeout=0.3)
    ask(server, 4)
    assert server.metrics().sum("vllm:num_requests_running") == 1
    assert server.metrics().sum("vllm:num_requests_waiting") == 2  # of those that had finished


def computes_on_one_engine_less(server: Running) -> None:
    ask(server, 1)
    body = {"model": server.model, "prompt": "x", "max_tokens": 10, "n": 8, "temperature": 1}
    with pytest.raises(httpx.ReadTimeout), server.client as client:
        client.post("/v1/completions", json=body, timeout=2)
    shares = server.metrics().by_engine("vllm:generation_tokens_total")
    assert shares["0"] > 0
    assert shares["1"] == 0


def leaks(server: Running) -> None:
    import psutil

    before = psutil.Process(server.process.pid).memory_info().rss
    ask(server, 8)
    assert psutil.Process(server.process.pid).memory_info().rss - before > 6 * 2**20


def leaks_no_more(server: Running) -> None:
    import psutil

    process = psutil.Process(server.process.pid)
    ask(server, 2)
    kept = process.memory_info().rss
    assert kept > 32 * 2**20
    ask(server, 8)
    assert process.memory_info().rss - kept < 32 * 2**20


SEEN: dict[str, Callable[[Running], None]] = {
    '{"fault": "every-request-fails"}': fails,
    '{"fault": "some-requests-fail"}': fails_sometimes,
    '{"fault": "streams-break"}': breaks_off,
    '{"fault": "short-answers"}': ends_early,
    '{"fault": "prefix-cached"}': hits_the_cache,
    '{"fault": "cold"}': compiles,
    '{"fault": "errors-logged"}': logs_errors,
    '{"fault": "starved-engine"}': starves,
    '{"fault": "half-the-cache"}': halves_the_cache,
    '{"fault": "leaking"}': leaks,
    '{"leak_mib": 32, "leak_requests": 2}': leaks_no_more,
    '{"fault": "hanging", "hang_after": 2}': hangs,
    '{"fault": "dying", "die_after": 3}': dies,
    '{"fault": "two-tokens-a-chunk"}': gathers_tokens,
    '{"fault": "wrong-layout"}': says_another_layout,
    '{"fault": "no-key"}': asks_nobody,
    '{"unstable": true}': repeats_nothing,
    '{"lost_metrics": ["vllm:generation_tokens_total"]}': loses_a_metric,
    '{"jit_every": 3}': jits_now_and_then,
    '{"die_after": 3, "outlives": true}': outlives_its_engine,
    '{"keep_aborted": true, "ghosts": 2}': forgets_nobody,
    '{"stuck_engine": 1, "stuck_after": 1}': computes_on_one_engine_less,
}
IN_VIRTUAL_TIME = {
    *("slow-20", "slow-decode", "slow-prefill", "slow-large-batches", "jittery"),
    "faster-than-physics",
}


@pytest.mark.parametrize("fault", SEEN)
def test_visible(tmp_path: Path, fault: str) -> None:
    name = "fp8-8xh200-dp-ep" if "starved" in fault or "stuck" in fault else "fp8-8xh200-tp-ep"
    with running(tmp_path, simulated(name), fault=fault) as server:
        SEEN[fault](server)


def test_never_ready(tmp_path: Path) -> None:
    fault = '{"fault": "never-ready"}'
    with running(tmp_path, fault=fault, wait=False) as server:
        limit = time.monotonic() + PATIENCE
        while "Starting to load model" not in server.text and time.monotonic() < limit:
            time.sleep(0.05)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health", headers={"Authorization": KEY})


def test_a_cache_that_is_smaller_than_told() -> None:
    settings = parse(["m", "--tensor-parallel-size", "8"])
    whole, half = (Service(settings, Faults(kv_usable=share)) for share in (1.0, 0.5))
    assert half.kv_tokens == whole.kv_tokens
    assert half.scheduler.limits.kv_tokens == whole.kv_tokens // 2


def test_every_preset_is_shown() -> None:
    """Those of speed alone in test_simulation_engine.py."""
    shown = {json.loads(fault).get("fault") for fault in SEEN}
    assert set(presets()) == (shown - {None}) | IN_VIRTUAL_TIME | {"never-ready"}
