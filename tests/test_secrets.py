from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptance.secrets import MASK, Redactor, lines_with

if TYPE_CHECKING:
    from pathlib import Path

KEY = "Zk3v-Qx9_mT7pLw2Rb8s"


def test_a_registered_secret_is_masked_everywhere() -> None:
    redact = Redactor([KEY])
    assert redact(f"key {KEY}, again {KEY}.") == f"key {MASK}, again {MASK}."
    assert redact("nothing secret") == "nothing secret"


@pytest.mark.parametrize("secret", ['pa"ss/wo rd+1', "schlüssel-äöü-99", "a b c d e f g"])
def test_also_as_it_looks_in_a_url_and_in_json(secret: str) -> None:
    from urllib.parse import quote

    redact = Redactor([secret])
    for text in (secret, json.dumps({"k": secret}), f"http://h/?k={quote(secret, safe='')}"):
        assert secret not in redact(text)
        assert MASK in redact(text)


def test_a_short_secret_is_masked_only_where_it_stands_alone() -> None:
    redact = Redactor(["token"])
    assert redact("token tokens tokenizer 'token'") == f"{MASK} tokens tokenizer '{MASK}'"


def test_a_secret_inside_a_longer_one_does_not_uncover_it() -> None:
    redact = Redactor([KEY, KEY + "-long"])
    assert redact(f"{KEY}-long") == MASK


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Redactor([" "])


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("HF_TOKEN=hf_abcdefghijABCDEFGHIJ1234", None),
        ("token hf_abcdefghijABCDEFGHIJ1234.", f"token hf_{MASK}."),
        ("sk-proj-abcdefghij_ABCDEFGHIJ-1234", f"sk-{MASK}"),
        ("nvapi-abcdefghijABCDEFGHIJ1234", f"nvapi-{MASK}"),
        ("ghp_abcdefghijABCDEFGHIJ1234", f"ghp_{MASK}"),
        ("Authorization: Bearer abc.DEF-123==", f"Authorization: Bearer {MASK}"),
        ("'authorization': 'bearer abcdef123'", f"'authorization': 'bearer {MASK}'"),
        ("vllm serve --api-key hunter2secret --port 1", f"vllm serve --api-key {MASK} --port 1"),
        ("--api-key=hunter2secret", f"--api-key={MASK}"),
        ("VLLM_API_KEY=hunter2secret vllm", f"VLLM_API_KEY={MASK} vllm"),
        ("{'api_key': 'hunter2secret', 'port': 1}", f"{{'api_key': '{MASK}', 'port': 1}}"),
        ('{"api_key": "hunter2secret"}', f'{{"api_key": "{MASK}"}}'),
        ("'api_key': None", "'api_key': None"),
        ("https://user:hunter2@example.org/simple", f"https://user:{MASK}@example.org/simple"),
        ("https://:hunter2@example.org", f"https://:{MASK}@example.org"),
        ("redis://example.org:6379/0", "redis://example.org:6379/0"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.SflKxwRJSM", MASK),
        ("AKIAIOSFODNN7EXAMPLE", f"AKIA{MASK}"),
        ("sk-short", "sk-short"),
        ("model deepseek-ai/DeepSeek-R1-0528", "model deepseek-ai/DeepSeek-R1-0528"),
        ("risk-adjusted-speculation-of-tokens", "risk-adjusted-speculation-of-tokens"),
    ],
)
def test_what_looks_like_a_token_is_masked(text: str, masked: str | None) -> None:
    got = Redactor()(text)
    if masked is None:
        assert "abcdefghij" not in got
    else:
        assert got == masked
    assert Redactor()(got) == got


def test_data_is_masked_by_value_and_by_name() -> None:
    redact = Redactor([KEY])
    data = {
        "argv": ["vllm", "--port", "1"],
        "env": {"VLLM_API_KEY": "x", "PATH": "/bin", "EMPTY_PASSWORD": ""},
        "headers": {"Authorization": "anything"},
        "note": f"it was {KEY}",
        KEY: (1, 2.5, None, True),
        "max_tokens": 5,
        "tokenizer": "deepseek",
        "api_key": None,
    }
    assert redact.value(data) == {
        "argv": ["vllm", "--port", "1"],
        "env": {"VLLM_API_KEY": MASK, "PATH": "/bin", "EMPTY_PASSWORD": ""},
        "headers": {"Authorization": MASK},
        "note": f"it was {MASK}",
        MASK: [1, 2.5, None, True],
        "max_tokens": 5,
        "tokenizer": "deepseek",
        "api_key": None,
    }


@given(before=st.text(max_size=60), after=st.text(max_size=60))
@settings(deadline=None)
def test_no_surrounding_text_uncovers_a_random_key(before: str, after: str) -> None:
    key = secrets.token_urlsafe(32)
    redact = Redactor([key])
    assert key not in redact(before + key + after)
    assert key not in json.dumps(redact.value({"a": [before + key + after]}))


@pytest.mark.parametrize("unit", ["sk-", "hf_", "eyJ.", "://:", "bearer ", "api_key=", "a:", "@"])
def test_hostile_text_costs_no_more_than_its_length(unit: str) -> None:
    assert Redactor([KEY])(unit * 100_000)


def test_lines_with_a_secret_are_told_by_number(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"a\nkey={KEY}\nb {KEY} {KEY}\nc\n")
    assert lines_with(log, KEY) == [2, 3]
    assert lines_with(log, KEY, most=1) == [2]
    assert lines_with(log, "absent-key-1234") == []
    log.write_text("url ?k=a%2Fb%3Dc\n")
    assert lines_with(log, "a/b=c") == [1]


def test_a_secret_on_the_border_of_two_chunks_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text(f"one\ntwo {KEY}\nthree\n")
    for size in range(1, log.stat().st_size + 1):
        monkeypatch.setattr("acceptance.secrets._CHUNK", size)
        assert lines_with(log, KEY) == [2], size
