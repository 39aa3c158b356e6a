"""Output to a terminal of text that is not ours: questions, answers, names, errors of others.

Such text may hold escape sequences that move the cursor, set the window's title or hide a line, and
characters that turn the direction of writing. They are shown, not obeyed.
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
"""Control characters but tab and line end, signs of direction, tags, and halves of surrogates."""


def visible(text: str) -> str:
    """Text with characters that a terminal would obey written as escapes, such as `\\x1b`."""
    return _OBEYED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in which such characters are escaped, so that it means the same."""
    return visible_json(json.dumps(value, ensure_ascii=False, indent=indent, default=str))


def visible_json(text: str) -> str:
    """JSON, as it is written, with such characters escaped; they can only be in its strings."""
    return _OBEYED.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def echo(text: str = "", *, nl: bool = True, err: bool = False) -> None:
    """Print text, visibly.

    Args:
        nl: whether to end the line.
        err: print to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    stream.write(visible(text) + ("\n" if nl else ""))
    stream.flush()


def console(*, stderr: bool = False) -> Console:
    """A console that prints whatever it is given visibly, beside its own styles."""
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
