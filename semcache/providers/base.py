"""Shared parts of the HTTP providers: names, keys, and tools in a neutral form."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from semcache.credentials import without_password
from semcache.errors import (
    ConfigError,
    ProviderError,
    RejectedError,
    RequestError,
    UnavailableError,
)
from semcache.providers import failures
from semcache.providers.answers import Delta, EventReader, mapping, mappings
from semcache.providers.http_messages import HTTPReply, HTTPRequest
from semcache.types import Completion, MediaPart, Message, Part, Request, TextPart

if TYPE_CHECKING:
    from pydantic import SecretStr

SYSTEM = frozenset({"system", "developer"})


def secret(key: str | SecretStr | None) -> SecretStr | None:
    """The key as a `SecretStr`; None if there is no key or an empty one.

    Raises:
        ConfigError: it cannot be a key. The message does not show it.
    """
    from pydantic import SecretStr

    if key is None:
        return None
    text = (key.get_secret_value() if isinstance(key, SecretStr) else key).strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            "The API key contains a space, a line break or a non-ASCII character; check that "
            "only the key was copied. (It is not shown here.)"
        )
    return SecretStr(text) if text else None


def _check_address(name: str, url: str) -> None:
    """Raise `ConfigError` unless the address is a valid HTTP URL."""
    import httpx

    message = f"{name}: base_url is {url!r}; use a URL such as http://127.0.0.1:8080/v1."
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ConfigError(message) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(message)


class HTTPProvider:
    """Base class of providers that are reached over HTTP.

    Args:
        name: the name that routes, limits and messages use.
        base_url: the base URL of its API.
        api_key: sent with each request, and never shown.
        model: the model for requests and routes that name none.
        models: patterns of the models it offers; requests that name one are sent to it.
        headers: sent with each request; values that are `SecretStr` are never shown.
        price_list: the provider's id in genai-prices.

    Raises:
        ConfigError: the name, the address, the key or a header is invalid.
    """

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        api_key: str | SecretStr | None,
        model: str | None,
        models: Sequence[str],
        headers: Mapping[str, str | SecretStr] | None,
        price_list: str | None,
    ) -> None:
        if not name or "/" in name or "@" in name:
            raise ConfigError(
                f"provider name {name!r}: a name must not be empty or contain '/' or '@'."
            )
        _check_address(name, base_url)
        for header, value in (headers or {}).items():
            text = value if isinstance(value, str) else value.get_secret_value()
            if not (header + text).isascii() or not (header + text).isprintable():
                raise ConfigError(
                    f"{name}: the header {header!r} contains a line break or a non-ASCII character."
                )
        self.name = name
        self.base_url = base_url.rstrip("/")
        self.default_model = model or ""
        self.models = tuple(models)
        self.price_list = price_list
        self._key = secret(api_key)
        items = (headers or {}).items()
        plain = {name: value for name, value in items if isinstance(value, str)}
        self._headers = {"content-type": "application/json", **plain}
        self._secret_headers = {n: value for n, value in items if not isinstance(value, str)}

    def __repr__(self) -> str:
        key = "with a key" if self._key else "without a key"
        return f"<{type(self).__name__} {self.name} at {self.address}, {key}>"

    @property
    def address(self) -> str:
        """The base URL with any credentials in it replaced by `***`, so that it can be shown."""
        return without_password(self.base_url)

    @property
    def has_key(self) -> bool:
        """Whether there is an API key."""
        return self._key is not None

    @property
    def key_id(self) -> str | None:
        """A digest of the key, which does not reveal it; None if there is no key."""
        if self._key is None:
            return None
        return hashlib.sha256(b"semcache key\n" + self._key.get_secret_value().encode()).hexdigest()

    def error(self, reply: HTTPReply, *, now: float) -> ProviderError:
        return failures.error_of(reply, provider=self.name, now=now, secrets=self._secrets())

    def _secrets(self) -> tuple[SecretStr, ...]:
        keys = () if self._key is None else (self._key,)
        return (*keys, *self._secret_headers.values())

    def _post(
        self, path: str, body: Mapping[str, Any], secrets: Mapping[str, SecretStr]
    ) -> HTTPRequest:
        """The POST request of a body, with this provider's address and headers."""
        secret_headers = {**self._secret_headers, **secrets}
        return HTTPRequest(f"{self.base_url}{path}", encode(body), self._headers, secret_headers)

    def _bearer(self) -> dict[str, SecretStr]:
        from pydantic import SecretStr

        if self._key is None:
            return {}
        return {"authorization": SecretStr(f"Bearer {self._key.get_secret_value()}")}

    def _events(self, delta_of: Callable[[Mapping[str, Any]], Delta]) -> EventReader:
        return EventReader(
            self.name,
            delta_of,
            lambda value: failures.failure_in(value, self.name, self._secrets()),
            lambda text: failures.redact(text, self._secrets()),
        )

    def _answer(
        self, reply: HTTPReply, read: Callable[[Mapping[str, Any]], Completion | None]
    ) -> Completion:
        """The answer in a reply with status 2xx.

        Raises:
            ProviderError: the reply reports an error.
            UnavailableError: the reply contains no answer.
        """
        body = failures.object_of(reply, self.name, self._secrets())
        error = failures.failure_in(body, self.name, self._secrets())
        if error is not None:  # some gateways report errors with status 200
            raise error
        completion = read(body)
        if completion is None:
            names = ", ".join(sorted(body)[:8]) or "no fields"
            raise UnavailableError(
                f"the JSON contains no answer (its fields: {names})",
                provider=self.name,
                status=reply.status,
            )
        return completion

    def _raise_unsupported(self, what: str) -> NoReturn:
        raise RejectedError(f"its API does not support {what}", provider=self.name)


def encode(body: Mapping[str, Any]) -> bytes:
    """Encode a body as JSON.

    Raises:
        RequestError: it contains a value that JSON does not support.
    """
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"The request cannot be sent as JSON: {error}.") from None


def text_only(parts: Sequence[Part]) -> str | None:
    """The text of parts that are all text; None if there is any other part."""
    if not all(isinstance(part, TextPart) for part in parts):
        return None
    return "\n\n".join(part.text for part in parts if isinstance(part, TextPart))


def text_of(parts: Sequence[Part]) -> str:
    """The text of the text parts; other parts are ignored."""
    return "\n\n".join(part.text for part in parts if isinstance(part, TextPart))


def conversation(request: Request) -> tuple[list[Message], list[Message]]:
    """(system messages, turns of the conversation)."""
    system = [m for m in request.messages if m.role in SYSTEM]
    return system, [m for m in request.messages if m.role not in SYSTEM]


def base64_of(part: MediaPart) -> str:
    return b64encode(part.data or b"").decode()


def media_type_of(part: MediaPart) -> str:
    """The part's media type, or else one guessed from its first bytes."""
    if part.media_type:
        return part.media_type
    data = part.data or b""
    for magic, media_type in (
        (b"\x89PNG", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF", "application/pdf"),
    ):
        if data.startswith(magic):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if part.kind == "image" else "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call, independent of any provider's form."""

    name: str
    description: str | None
    schema: Mapping[str, Any]
    strict: bool | None = None


def tools_of(value: Any) -> list[Tool | Mapping[str, Any]]:
    """The tools in a request, in OpenAI's, Anthropic's or Gemini's form.

    Tools other than functions are returned as they are.
    """
    tools: list[Tool | Mapping[str, Any]] = []
    for raw in value if isinstance(value, list | tuple) else [value]:
        tool = mapping(raw.model_dump(exclude_none=True) if hasattr(raw, "model_dump") else raw)
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        if declared:
            tools += [_tool(item) for item in mappings(list(declared))]
        elif tool.get("type") == "function":
            tools.append(_tool(mapping(tool.get("function")) or tool))
        elif "input_schema" in tool and tool.get("type") in (None, "custom"):
            tools.append(_tool(tool))
        else:
            tools.append(tool)
    return tools


def _tool(tool: Mapping[str, Any]) -> Tool:
    names = ("parameters", "input_schema", "parametersJsonSchema", "parameters_json_schema")
    schema = next((tool[name] for name in names if tool.get(name)), None)
    return Tool(
        str(tool.get("name")),
        tool.get("description"),
        mapping(schema) or {"type": "object", "properties": {}},
        tool.get("strict"),
    )


def tool_choice_of(value: Any) -> str | Mapping[str, str] | None:
    """A tool choice in any provider's form, as "auto", "none", "required" or {"name": ...}."""
    if value is None or isinstance(value, str):
        return "required" if value == "any" else value
    choice = mapping(value)
    name = mapping(choice.get("function")).get("name") or choice.get("name")
    if name:
        return {"name": str(name)}
    kind = choice.get("type")
    return "required" if kind == "any" else None if kind is None else str(kind)


def schema_of(response_format: Any) -> tuple[Mapping[str, Any] | None, bool]:
    """(the requested JSON schema or None, whether JSON is requested at all)."""
    if response_format is None:
        return None, False
    if hasattr(response_format, "model_json_schema"):
        return response_format.model_json_schema(), True
    form = mapping(response_format)
    kind = form.get("type")
    if kind == "json_schema":
        inner = mapping(form.get("json_schema"))
        return mapping(inner.get("schema") or form.get("schema")) or None, True
    return None, kind in ("json_object", "json")
