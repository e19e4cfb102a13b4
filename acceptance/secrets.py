"""Keep secrets out of everything we write.

Secrets are random keys we made, keys the user gave, and whatever looks like a token in text that
others wrote (a server's log, a client's output, an exception).
"""

from __future__ import annotations

import json
import re
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MASK = "[secret]"
_SHORT = 8  # a shorter secret is masked only where it stands alone, or it would eat other words
_CHUNK = 1 << 20
_OFTEN = 200  # characters of a text that may come again

# (pattern, what stays of it). Bounded repeats: a text of any size costs linear time.
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(hf_|hf_oauth_|api_org_)[A-Za-z0-9]{16,200}"), rf"\1{MASK}"),
    (re.compile(r"\b(sk-|rk-|pk-)[A-Za-z0-9_\-]{16,400}"), rf"\1{MASK}"),
    (re.compile(r"\b(nvapi-|glpat-|github_pat_)[A-Za-z0-9_\-]{16,200}"), rf"\1{MASK}"),
    (re.compile(r"\b(gh[pousr]_)[A-Za-z0-9]{16,200}"), rf"\1{MASK}"),
    (re.compile(r"\b(xox[abeoprs]-)[A-Za-z0-9\-]{10,200}"), rf"\1{MASK}"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"), rf"\1{MASK}"),
    (
        re.compile(r"\beyJ[A-Za-z0-9_\-]{8,4000}\.[A-Za-z0-9_\-]{4,4000}\.[A-Za-z0-9_\-]{4,4000}"),
        MASK,
    ),
    (re.compile(r"(?i)\b(bearer|basic)( {1,4})[A-Za-z0-9._~+/=\-]{6,4000}"), rf"\1\2{MASK}"),
    (
        re.compile(
            r"(?i)((?:api[_-]?key|access[_-]?key|secret[_-]?key|auth[_-]?token|hf[_-]?token"
            r"|password|passwd)['\"]{0,2}(?: {0,2}[=:] {0,2}| {1,2}))(['\"]?)"
            r"(?!None\b|null\b|\[secret\])[^\s'\",;&\]})]{4,4000}"
        ),
        rf"\1\2{MASK}",
    ),
    (
        re.compile(r"(\b[a-z][a-z0-9+.\-]{1,20}://[^/\s:@]{0,100}:)[^/\s@]{1,400}(?=@)"),
        rf"\1{MASK}",
    ),
)
_NAMES = re.compile(
    r"(?i)(?:^|[_\-.])(?:api[_-]?keys?|secret|secret[_-]?key|password|passwd|authorization"
    r"|auth[_-]?token|access[_-]?token|hf[_-]?token|token[_-]?secret|credentials?|cookie)$"
)


class Redactor:
    """Masks registered secrets, and what has the shape of one. Safe to share between threads.

    Redact before cutting text short: half a secret is not recognised.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for secret in secrets:
            self.register(secret)

    def register(self, secret: str) -> None:
        """Masks `secret` from now on, also as it looks in a URL or in JSON. An empty one would
        match everywhere and raises ValueError."""
        if not secret.strip():
            raise ValueError("an empty text cannot be a secret")
        with self._lock:
            self._known |= _forms(secret)
            longest_first = sorted(self._known, key=lambda known: (-len(known), known))
            self._pattern = re.compile("|".join(_exact(known) for known in longest_first))

    def __call__(self, text: str) -> str:
        """The text with every secret replaced by [secret]."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _known_shapeless(text) if len(text) <= _OFTEN else _shapeless(text)

    redact = __call__

    def value(self, value: Any) -> Any:
        """The same for data that will be written as JSON: strings everywhere in it, keys included,
        and whole values under names such as api_key or Authorization."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {
                self.value(key): MASK
                if isinstance(key, str) and _names_one(key) and item not in (None, "", False)
                else self.value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        return value


def _shapeless(text: str) -> str:
    for pattern, kept in _SHAPES:
        text = pattern.sub(kept, text)
    return text


# Records repeat their names and most of their words: ten searches each, half of a record's time.
_known_shapeless = lru_cache(maxsize=1 << 13)(_shapeless)


@lru_cache(maxsize=1 << 10)
def _names_one(name: str) -> bool:
    """Whether what has this name is a secret."""
    return _NAMES.search(name) is not None


def _exact(secret: str) -> str:
    if len(secret) >= _SHORT:
        return re.escape(secret)
    return rf"(?<![\w\-]){re.escape(secret)}(?![\w\-])"


def _forms(secret: str) -> set[str]:
    """A secret as it is, as in a URL and as in JSON."""
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}


def lines_with(path: Path, secret: str, most: int = 5) -> list[int]:
    """Numbers of the first lines of a file, at most so many, that hold a secret in any form; of a
    file of any size, in bounded memory. Nothing of the lines themselves is returned. Raises
    OSError."""
    forms = sorted((form.encode() for form in _forms(secret)), key=len, reverse=True)
    pattern = re.compile(b"|".join(map(re.escape, forms)))
    found: dict[int, None] = {}
    number, kept = 1, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            text = kept + chunk
            for match in pattern.finditer(text):
                found[number + text.count(b"\n", 0, match.start())] = None
                if len(found) == most:
                    return list(found)
            done = max(len(text) - len(forms[0]) + 1, 0)  # the rest may be half of a secret
            number, kept = number + text.count(b"\n", 0, done), text[done:]
    return list(found)
