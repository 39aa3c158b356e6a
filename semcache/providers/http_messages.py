"""What goes over HTTP, as values. A provider builds and reads these; the router carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """A request that has not been sent.

    Attributes:
        secrets: headers whose values nobody may see; they are opened only to be sent.
    """

    url: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class HTTPReply:
    """An answer that has arrived whole. Names of headers are in lower case.

    It does not show its content, which may quote the key it was sent.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """Without its parameters, in lower case; "" where there is none."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event (WHATWG HTML, section 9.2). It does not show its data either."""

    name: str
    data: str = field(repr=False)
