"""What the providers over HTTP share: names, keys, tools in a neutral form."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

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
    """A key that does not show itself; None for none and for an empty one.

    Raises:
        ConfigError: it cannot be a key. It is not shown.
    """
    from pydantic import SecretStr

    if key is None:
        return None
    text = (key.get_secret_value() if isinstance(key, SecretStr) else key).strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            "The API key holds a space, a line break or a letter outside ASCII; it was not copied "
            "whole, or something else was. (It is not shown here.)"
        )
    return SecretStr(text) if text else None


def _check_address(name: str, url: str) -> None:
    """Raise `ConfigError` for an address that nothing can be sent to."""
    import httpx

    said = f"{name}: base_url is {url!r}; give one such as http://127.0.0.1:8080/v1."
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ConfigError(said) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(said)


class HTTPProvider:
    """Names and keys of a provider that is reached over HTTP.

    Args:
        name: what routes, limits and messages call it.
        base_url: where its API begins.
        api_key: sent with each request, and shown to nobody.
        model: for requests and routes that name none.
        models: patterns of models that are its own.
        headers: sent with each request; values that are `SecretStr` are shown to nobody.
        price_list: its id in the list of prices.

    Raises:
        ConfigError: the name or the address cannot be used.
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
            raise ConfigError(f"provider name {name!r}: give one without '/' and '@'.")
        _check_address(name, base_url)
        for header, value in (headers or {}).items():
            text = value if isinstance(value, str) else value.get_secret_value()
            if not (header + text).isascii() or not (header + text).isprintable():
                raise ConfigError(
                    f"{name}: the header {header!r} holds a line break or a letter outside ASCII."
                )
        self.name = name
        self.base_url = base_url.rstrip("/")
        self.default_model = model or ""
        self.models = tuple(models)
        self.price_list = price_list
        self._key = secret(api_key)
        given = (headers or {}).items()
        open_ones = {name: value for name, value in given if isinstance(value, str)}
        self._headers = {"content-type": "application/json", **open_ones}
        self._secret_headers = {n: value for n, value in given if not isinstance(value, str)}

    def __repr__(self) -> str:
        key = "with a key" if self._key else "without a key"
        return f"<{type(self).__name__} {self.name} at {self.address}, {key}>"

    @property
    def address(self) -> str:
        """The base URL as it may be shown: without a password."""
        return re.sub(r"//[^/@]*@", "//***@", self.base_url)

    @property
    def has_key(self) -> bool:
        """Whether a key was given."""
        return self._key is not None

    @property
    def key_id(self) -> str | None:
        """Equal for equal keys; a digest that tells nothing of them."""
        if self._key is None:
            return None
        return hashlib.sha256(b"semcache key\n" + self._key.get_secret_value().encode()).hexdigest()

    def error(self, reply: HTTPReply, *, now: float) -> ProviderError:
        return failures.error_of(reply, provider=self.name, now=now, secrets=self._secrets())

    def _secrets(self) -> tuple[SecretStr, ...]:
        keys = () if self._key is None else (self._key,)
        return (*keys, *self._secret_headers.values())

    def _sent(
        self, path: str, body: Mapping[str, Any], secrets: Mapping[str, SecretStr]
    ) -> HTTPRequest:
        """The request for a body, with this provider's address and headers."""
        hidden = {**self._secret_headers, **secrets}
        return HTTPRequest(f"{self.base_url}{path}", encoded(body), self._headers, hidden)

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
            lambda text: failures.scrubbed(text, self._secrets()),
        )

    def _answer(
        self, reply: HTTPReply, read: Callable[[Mapping[str, Any]], Completion | None]
    ) -> Completion:
        """The answer in a body.

        Raises:
            UnavailableError: there is none in it.
        """
        body = failures.object_of(reply, self.name, self._secrets())
        failed = failures.failure_in(body, self.name, self._secrets())
        if failed is not None:  # some gateways answer 200 with an error
            raise failed
        completion = read(body)
        if completion is None:
            raise UnavailableError(
                f"the JSON holds no answer (it has {', '.join(sorted(body)[:8]) or 'no fields'})",
                provider=self.name,
                status=reply.status,
            )
        return completion

    def _cannot(self, what: str) -> NoReturn:
        raise RejectedError(f"its API does not take {what}", provider=self.name)


def encoded(body: Mapping[str, Any]) -> bytes:
    """A body as it is sent.

    Raises:
        RequestError: it holds what is no JSON.
    """
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"The request cannot be sent as JSON: {error}.") from None


def words(parts: Sequence[Part]) -> str | None:
    """The text of parts that are nothing but text; None if there is anything else."""
    if not all(isinstance(part, TextPart) for part in parts):
        return None
    return "\n\n".join(part.text for part in parts if isinstance(part, TextPart))


def text_of(parts: Sequence[Part]) -> str:
    """The words among parts."""
    return "\n\n".join(part.text for part in parts if isinstance(part, TextPart))


def conversation(request: Request) -> tuple[list[Message], list[Message]]:
    """(messages that instruct the model, turns of the conversation)."""
    system = [m for m in request.messages if m.role in SYSTEM]
    return system, [m for m in request.messages if m.role not in SYSTEM]


def base64_of(part: MediaPart) -> str:
    return b64encode(part.data or b"").decode()


def media_type_of(part: MediaPart) -> str:
    """The media type that was given, or that the bytes begin like."""
    if part.media_type:
        return part.media_type
    data = part.data or b""
    for magic, found in (
        (b"\x89PNG", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF", "application/pdf"),
    ):
        if data.startswith(magic):
            return found
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if part.kind == "image" else "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call, whatever provider's form it was given in."""

    name: str
    description: str | None
    schema: Mapping[str, Any]
    strict: bool | None = None


def tools_of(given: Any) -> list[Tool | Mapping[str, Any]]:
    """Tools in OpenAI's, Anthropic's or Gemini's form; those of another kind as they are."""
    found: list[Tool | Mapping[str, Any]] = []
    for raw in given if isinstance(given, list | tuple) else [given]:
        tool = mapping(raw.model_dump(exclude_none=True) if hasattr(raw, "model_dump") else raw)
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        if declared:
            found += [_tool(item) for item in mappings(list(declared))]
        elif tool.get("type") == "function":
            found.append(_tool(mapping(tool.get("function")) or tool))
        elif "input_schema" in tool and tool.get("type") in (None, "custom"):
            found.append(_tool(tool))
        else:
            found.append(tool)
    return found


def _tool(tool: Mapping[str, Any]) -> Tool:
    names = ("parameters", "input_schema", "parametersJsonSchema", "parameters_json_schema")
    schema = next((tool[name] for name in names if tool.get(name)), None)
    return Tool(
        str(tool.get("name")),
        tool.get("description"),
        mapping(schema) or {"type": "object", "properties": {}},
        tool.get("strict"),
    )


def tool_choice_of(given: Any) -> str | Mapping[str, str] | None:
    """ "auto", "none", "required", {"name": ...}, or None, from any provider's form."""
    if given is None or isinstance(given, str):
        return "required" if given == "any" else given
    choice = mapping(given)
    name = mapping(choice.get("function")).get("name") or choice.get("name")
    if name:
        return {"name": str(name)}
    kind = choice.get("type")
    return "required" if kind == "any" else None if kind is None else str(kind)


def schema_of(response_format: Any) -> tuple[Mapping[str, Any] | None, bool]:
    """(the JSON schema asked for, whether JSON is asked for at all)."""
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
