"""Text and files that nobody wrote on purpose: real ones with pieces cut out, doubled and replaced,
and ones that are hostile."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# The same examples in every run; more of them with `--hypothesis-profile=none` and a loop.
fuzzed = settings(
    derandomize=True,
    max_examples=120,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

NUMBERS = (
    *("", "-1", "0", "1e400", "-1e400", "nan", "inf", "NaN", "Infinity", "-Infinity"),
    *("9" * 30, "9" * 4999, ",", ",,,", ".", "1.", "1_000", "0x", "1e", "١٢", "²", "true"),
)
PIECES = (
    *("\x00", "\x1b[31m", "\r", "\n", "\r\n", "\u2028", "\ufeff", "\ud800", "é" * 3, "𝄞"),
    *("[", "]", "{", "}", "[[", "]]", "(", ")", '"', "'", '"""', "=", ":", ",", "#", "\\", " "),
    *("[" * 2000, "{" * 2000, '{"a":' * 2000, "null", "[]", "{}", "''", "data:", "event:", " pid="),
)


def words(*more: str) -> st.SearchStrategy[str]:
    """A piece to put in somewhere."""
    return st.sampled_from([*NUMBERS, *PIECES, *more]) | st.text(max_size=12)


@st.composite
def mutated(draw: st.DrawFn, texts: tuple[str, ...], *more: str) -> str:
    """One of the texts after a few edits. more: pieces that belong to its format."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from((0, 0, 1, 2, 5, 20, 200))))
        match draw(st.integers(0, 3)):
            case 0:
                put = draw(words(*more))
            case 1:
                put = text[start:end] * 2
            case 2:
                at = draw(st.integers(0, len(text)))
                put = text[at : at + 40]
            case _:
                put = ""
        text = text[:start] + put + text[end:]
    return text


@st.composite
def edited(draw: st.DrawFn, data: Any) -> Any:
    """Plain data in which some values are others, left out, or under other keys."""
    if isinstance(data, dict):
        made = {}
        for key, value in data.items():
            fate = draw(st.integers(0, 30))
            if fate == 0:
                continue
            name = draw(st.text(max_size=8)) if fate == 1 else key
            made[name] = draw(anything()) if fate == 2 else draw(edited(value))
        return made
    if isinstance(data, list) and len(data) < 20:
        return [draw(edited(value)) for value in data]
    return draw(anything()) if draw(st.integers(0, 60)) == 0 else data


def anything() -> st.SearchStrategy[Any]:
    """Any value that JSON can hold, and numbers that it cannot."""
    plain = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from((10**400, -(10**400), 2**64, float("nan"), float("inf"), -0.0))
        | st.floats()
        | st.text(max_size=8)
    )
    return st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=5,
    )


def as_bytes(text: str) -> bytes:
    """What may stand in a file: text with lone surrogates is no UTF-8."""
    return text.encode("utf-8", "surrogatepass")
