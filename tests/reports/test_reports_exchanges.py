"""Requests of a check are kept as they pass, without secrets, and can be asked again."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.secrets import Redactor
from acceptance.serving.addresses import Addresses
from reports.exchanges import KEPT, MOST, Journal, curl, latest, recall
from reports.schema import Exchange

KEY = "quiet-0123456789abcdef"


def answer(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/long":
        text = "x" * (MOST - 5) + KEY + "y" * 100_000
        return httpx.Response(200, content=iter([text[:1500].encode(), text[1500:].encode()]))
    return httpx.Response(200, json={"said": f"your key is {KEY}", "you": request.url.path})


@pytest.fixture
def journal():
    return Journal(Redactor([KEY]).redact)


@pytest.fixture
def client(journal):
    headers = {"Authorization": f"Bearer {KEY}"}
    transport = httpx.MockTransport(answer)
    with httpx.Client(base_url="http://server", headers=headers, transport=transport) as made:
        yield journal.watch(made, KEY)


def test_request_and_answer_are_kept_without_the_key(client, journal):
    client.post("/v1/chat/completions?a=1", json={"messages": [], "key": KEY})
    (seen,) = journal.taken()
    assert (seen.method, seen.path, seen.status) == ("POST", "/v1/chat/completions?a=1", 200)
    assert seen.address == ""
    assert seen.auth == "key"
    assert json.loads(seen.request) == {"messages": [], "key": "[secret]"}
    assert "your key is [secret]" in seen.response
    assert KEY not in seen.model_dump_json()


def test_of_several_addresses_the_one_that_answered_is_kept(journal):
    turns = {"request": [Addresses(("http://one:8000", "http://two:8001")).take_turn]}
    transport = httpx.MockTransport(answer)
    with httpx.Client(base_url="http://one:8000", event_hooks=turns, transport=transport) as made:
        journal.watch(made, addressed=True)
        for _ in range(3):
            made.get("/health")
    assert [seen.address for seen in journal.taken()] == ["one:8000", "two:8001", "one:8000"]


def test_a_stream_stays_one_and_its_beginning_is_kept(client, journal):
    with client.stream("GET", "/long") as response:
        parts = response.iter_raw()
        assert len(next(parts)) == 1500
        assert len(journal.taken()[0].response) == 1500
        assert sum(map(len, parts)) > 100_000
    (seen,) = journal.taken()
    assert len(seen.response) < MOST + 100
    assert "more bytes" in seen.response
    assert KEY[:12] not in seen.response


def test_keys_are_told_apart_and_only_the_last_are_kept(client, journal):
    for key in ("", "Bearer wrong"):
        client.get("/health", headers={"Authorization": key})
    assert [one.auth for one in journal.taken()] == ["none", "other"]
    for number in range(20):
        client.get(f"/{number}")
    assert [one.path for one in journal.taken()] == [f"/{n}" for n in range(20 - KEPT, 20)]
    journal.clear()
    assert journal.taken() == ()


def test_body_that_cannot_be_repeated_has_no_command(client, journal):
    client.post("/v1/completions", content=b"\xff\x00")
    client.post("/v1/completions", content=b"x" * (MOST + 1))
    assert [(one.whole, curl(one)) for one in journal.taken()] == [(False, ""), (False, "")]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_command_sends_the_same_body_through_a_shell(body):
    asked = Exchange(method="POST", path="/v1/x", status=200, auth="key", request=body)
    words = shlex.split(curl(asked))
    assert words[:3] == ["curl", "-sS", "$BASE_URL/v1/x"] or not body
    assert "Authorization: Bearer $API_KEY" in words
    if body:
        assert words[words.index("--data-raw") + 1] == body


def test_command_never_names_a_key():
    plain = Exchange(method="GET", path="/health", status=200)
    other = Exchange(method="DELETE", path="/v1/$(id)`x`", status=401, auth="other")
    assert curl(plain) == 'curl -sS "$BASE_URL/health"'
    assert "not-the-key" in curl(other)
    assert "-X DELETE" in curl(other)
    assert '/v1/\\$(id)\\`x\\`"' in curl(other)


def test_answers_that_were_asked_for_together_are_recalled_by_each_test(client, journal):
    with ThreadPoolExecutor(4) as pool:
        asked = dict(pool.map(lambda n: (n, (client.get(f"/{n}"), latest())), range(20)))
    journal.clear()  # the next test
    client.get("/for-all")
    recall(asked[3][1])
    recall(asked[3][0])
    recall(asked[7][0])
    recall(None)
    assert [one.path for one in journal.taken()] == ["/3", "/7"]
    journal.clear()
    client.get("/own")
    assert [one.path for one in journal.taken()] == ["/own"]
