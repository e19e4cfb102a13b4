"""How values are written for people, and how foreign text is made harmless."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime

from acceptance.deployments.schema import Lane

LONGEST = 4000
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ODD = re.compile(r"[^\x20-\x7e\n\t]")

LANES = {
    Lane.FULL: "full: the real model on the GPUs it is accepted for",
    Lane.SLICE: "slice: one GPU, few layers or a tiny model; says nothing of the whole model",
    Lane.REHEARSAL: "rehearsal: real vLLM on CPU with a tiny checkpoint; no deployment "
    "was accepted",
    Lane.SIMULATED: "simulated: a server that only imitates one; no deployment was accepted",
}


def visible(text: object, longest: int = LONGEST) -> str:
    """Text fit to be shown: terminal colours are dropped, control, bidirectional and other
    invisible characters spelled out, and what is longer than `longest` characters is cut and
    says how much is missing."""
    whole = str(text)
    if len(whole) <= longest and not _ODD.search(whole):
        return whole  # nearly all there is
    whole = _COLOUR.sub("", whole)
    shown = "".join(_spell(char) for char in whole[:longest])
    left = len(whole) - longest
    return f"{shown} … ({left} more characters)" if left > 0 else shown


def _spell(char: str) -> str:
    if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def number(value: object) -> str:
    """A value in at most six significant digits; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return visible(value, 200)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f") if abs(value) < 10**15 else f"{value:.6e}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return visible(value, 200)


def percent(share: float | None) -> str:
    """A signed share as a percentage; a dash for none."""
    if share is None or not math.isfinite(share):
        return "–"
    if abs(share) >= 10:
        return f"{'+' if share > 0 else '−'}>999 %"
    return f"{share * 100:+.1f} %".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Such as 850 ms, 3.2 s, 4 min 05 s, 2 h 07 min; a dash for none."""
    if seconds is None or seconds < 0:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(seconds: float | None) -> str:
    """Time of day and date, UTC; a dash for none."""
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def markdown(text: object, longest: int = 400) -> str:
    """Text within Markdown, on one line and without meaning of its own."""
    flat = " ".join(visible(text, longest).split())
    for char in "\\|`<*_[":
        flat = flat.replace(char, f"\\{char}" if char != "<" else "&lt;")
    return flat
