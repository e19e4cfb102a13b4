"""Several addresses of one deployment: requests take turns, readings of /metrics become one."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import pytest

from acceptance.errors import ObservationError
from acceptance.serving.addresses import Addresses, bases_of, in_turn, metrics_of, normal
from acceptance.serving.client import client
from acceptance.serving.live import engine_caches
from acceptance.serving.metrics import GENERATED, Metrics, merged, parse, scrape

A, B = "http://10.0.0.1:8000", "http://10.0.0.2:8000/gate"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://10.0.0.1:8000/v1/", A),
        ("http://10.0.0.1:8000/metrics", A),
        ("  HTTP://10.0.0.1:8000 ", A),
        ("https://Gateway:443/team/v1", "https://gateway/team"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_one_address_has_one_form(given: str, kept: str) -> None:
    assert normal(given) == kept
    assert normal(kept) == kept


@pytest.mark.parametrize("given", ["", "10.0.0.1:8000", "ftp://a", "http://", "http://a?x=1", "a"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ValueError, match=r"address|URL|port"):
        normal(given)


def test_requests_take_turns_and_those_for_metrics_stay() -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((str(request.url), request.headers["Host"]))
        return httpx.Response(200)

    hooks = {"request": [Addresses((A, B)).take_turn]}
    with httpx.Client(base_url=A, transport=httpx.MockTransport(answer), event_hooks=hooks) as http:
        for path in ("/health", "/v1/models?x=1", "/metrics", f"{B}/metrics", "/health"):
            http.get(path)
    first, second = "10.0.0.1:8000", "10.0.0.2:8000"
    assert asked == [
        (f"{A}/health", first),
        (f"{B}/v1/models?x=1", second),
        (f"{A}/metrics", first),
        (f"{B}/metrics", second),
        (f"{A}/health", first),
    ]


def test_a_client_stays_where_it_is_told_to() -> None:
    several = Addresses((A, B))
    server = SimpleNamespace(base_url=A, api_key="", several=several)
    with client(server, 1) as turning, client(server, 1, at=B) as staying:
        assert turning.event_hooks["request"] == [several.take_turn]
        assert str(staying.base_url) == f"{B}/"
        assert not staying.event_hooks["request"]
    urls = in_turn(server)
    assert [next(urls) for _ in range(3)] == [A, B, A]
    one = SimpleNamespace(base_url=A, api_key="")
    assert bases_of(one) == metrics_of(one) == (A,)
    assert next(in_turn(one)) == A


def reading(*engines: str) -> Metrics:
    """Each engine generated as many tokens as its number, and one."""
    lines = [f'vllm:generation_tokens_total{{engine="{e}"}} {int(e) + 1}' for e in engines]
    lines += [
        f'vllm:cache_config_info{{engine="{e}",kv_cache_size_tokens="64"}} 1' for e in engines
    ]
    return parse("\n".join([*lines, "process_open_fds 5"]) + "\n")


def test_engines_of_all_addresses_are_one_reading() -> None:
    both = merged({A: reading("0", "1"), B: reading("2", "3")})
    assert both.by_engine(GENERATED) == {"0": 1, "1": 2, "2": 3, "3": 4}
    assert both.sum("process_open_fds") == 10
    assert set(engine_caches(both)) == {"0", "1", "2", "3"}
    assert merged({A: reading("0")}) == reading("0")


def test_one_number_at_two_addresses_is_two_engines() -> None:
    both = merged({A: reading("0", "1"), B: reading("0")})
    assert both.by_engine(GENERATED) == {
        "0@10.0.0.1:8000": 1,
        "1": 2,
        "0@10.0.0.2:8000/gate": 1,
    }
    assert sum(cache.kv_tokens or 0 for cache in engine_caches(both).values()) == 3 * 64


def test_a_part_of_the_metrics_is_no_reading() -> None:
    gone = "http://127.0.0.1:9"
    server = SimpleNamespace(base_url=A, api_key="", several=Addresses((A,), (gone,)))
    with pytest.raises(ObservationError, match=r"could not be read at 127\.0\.0\.1:9"):
        scrape(server)
