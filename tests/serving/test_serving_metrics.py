"""The server's own numbers: read exactly, and never a zero for what is not there."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.errors import ObservationError
from acceptance.serving.metrics import Metrics, parse, scrape

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+06
vllm:generation_tokens_total{engine="1",model_name="m"} 20.0
# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop"} 1.0
vllm:request_success_total{engine="0",finished_reason="length"} 2.0
vllm:request_success_total{engine="1",finished_reason="stop"} 4.0
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="1"} 1.0
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 2.0
vllm:time_to_first_token_seconds_count{engine="0"} 2.0
vllm:time_to_first_token_seconds_sum{engine="0"} 0.7
process_open_fds 12.0
"""


def test_sums_are_over_everything_of_the_name() -> None:
    metrics = parse(TEXT)
    assert metrics.sum("vllm:num_requests_running") == 7
    assert metrics.sum("vllm:generation_tokens_total") == 1_500_020
    assert metrics.sum("vllm:request_success_total") == 7
    assert metrics.sum("process_open_fds") == 12
    assert metrics.sum("vllm:time_to_first_token_seconds_count") == 2


def test_engines_are_kept_apart() -> None:
    metrics = parse(TEXT)
    assert metrics.by_engine("vllm:request_success_total") == {"0": 3, "1": 4}
    assert metrics.by_engine("process_open_fds") == {"0": 12}


def test_labels_are_one_set_an_engine() -> None:
    labels = parse(TEXT).labels("vllm:cache_config_info")
    assert [label["engine"] for label in labels] == ["0", "1"]
    assert {label["block_size"] for label in labels} == {"16"}


@pytest.mark.parametrize(
    "name", ["vllm:generation_tokens", "vllm:num_requests", "vllm:no_such_thing", ""]
)
def test_what_is_not_there_is_not_zero(name: str) -> None:
    """Nor is a part of a name the name."""
    metrics = parse(TEXT)
    for ask in (metrics.sum, metrics.by_engine, metrics.labels, metrics.named):
        with pytest.raises(ObservationError, match="exports no metric"):
            ask(name)


@pytest.mark.parametrize("text", ["vllm:x{engine=", "vllm:x one", "vllm:x{a='b'} 1", "<html>"])
def test_what_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(ObservationError):
        parse(text).sum("vllm:x")


@given(st.text(alphabet=st.sampled_from('a1:{}="\\, \n#_.+-eN<'), max_size=60) | st.text())
def test_any_text_is_metrics_or_an_observation_error(text: str) -> None:
    with suppress(ObservationError):
        assert isinstance(parse(text), Metrics)


@pytest.fixture
def answers() -> Iterator[SimpleNamespace]:
    """An endpoint that answers with .status and TEXT, and notes the keys it was sent."""
    place = SimpleNamespace(status=200, keys=[], api_key="the-key", base_url="")

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place.keys.append(self.headers.get("authorization"))
            self.send_response(place.status)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        place.base_url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield place
        server.shutdown()


def test_a_scrape_is_keyed_where_there_is_a_key(answers: SimpleNamespace) -> None:
    """A server that was attached to may have none."""
    assert scrape(answers) == parse(TEXT)
    answers.api_key = ""
    assert scrape(answers) == parse(TEXT)
    assert answers.keys == ["Bearer the-key", None]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_error_is_no_reading(answers: SimpleNamespace, status: int) -> None:
    answers.status = status
    with pytest.raises(ObservationError, match=f"could not be read: .*{status}"):
        scrape(answers)


def test_nobody_is_no_reading(answers: SimpleNamespace) -> None:
    answers.base_url = "http://127.0.0.1:9"
    with pytest.raises(ObservationError, match="ConnectError"):
        scrape(answers)
