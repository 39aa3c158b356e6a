"""HTTP messages as values: a provider builds and reads them, the router transfers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """An HTTP request to be sent.

    Attributes:
        secrets: headers with secret values, which are revealed only when they are sent.
    """

    url: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class HTTPReply:
    """A whole HTTP reply. Header names are in lower case.

    The repr leaves out the content, which may quote the API key.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; "" if there is none."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event (WHATWG HTML, section 9.2). The repr leaves out the data."""

    name: str
    data: str = field(repr=False)
