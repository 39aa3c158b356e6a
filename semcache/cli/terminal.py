"""Prints text from elsewhere (questions, answers, names, error messages) to a terminal.

Such text may hold escape sequences that move the cursor, set the window's title or hide a line, and
characters that reverse the direction of writing. They are shown, not obeyed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
"""Control characters except tab and newline, direction marks, separators, tags, surrogates."""


def visible(text: str) -> str:
    """Text in which characters that a terminal would obey are escaped, as in `\\x1b`."""
    return _OBEYED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in which characters that a terminal would obey are escaped; its meaning is kept."""
    return visible_json(json.dumps(value, ensure_ascii=False, indent=indent, default=str))


def visible_json(text: str) -> str:
    """`json_text` for text that is JSON already; such characters occur only inside its strings."""
    return _OBEYED.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def echo(text: str = "", *, nl: bool = True, err: bool = False) -> None:
    """Print text as `visible` writes it.

    Args:
        nl: whether to end the line.
        err: print to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    stream.write(visible(text) + ("\n" if nl else ""))
    stream.flush()


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as `visible` writes it, and still applies its own styles."""
    from rich.console import Console
    from rich.segment import Segment

    class Visible(Console):
        def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
            for segment in super().render(*args, **kwargs):
                if segment.control:
                    yield segment
                else:
                    yield Segment(visible(segment.text), segment.style)

    return Visible(stderr=stderr, highlight=False)
