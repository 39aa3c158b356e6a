"""The sections of the settings: providers, routes, retries, circuit breakers, webhooks.

Each setting has a description, in its field or in the docstring of its section; the reference is
generated from them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderSettings(_Section):
    """One provider.

    Attributes:
        kind: "openai", "anthropic", "gemini", "openrouter", "ollama" or the name of an entry
            point; by default the name of the provider.
        model: the model for requests that name none.
        models: patterns of the models that this provider offers, such as "gpt-*".
        requests_per_minute, tokens_per_minute: the rate limits; None means unlimited.
        wait: the longest that a call waits for its turn under a rate limit, in seconds.
        concurrency: the most calls in flight at once; None means unlimited.
    """

    kind: str | None = None
    base_url: str | None = Field(
        default=None, description="The base URL of the API, such as http://127.0.0.1:8080/v1."
    )
    api_key: SecretStr | None = Field(
        default=None, description="The API key. It never appears in messages or logs."
    )
    model: str | None = None
    models: tuple[str, ...] = ()
    headers: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Headers to send with every request; their values are never shown.",
    )
    version: str | None = Field(
        default=None, description="The version of the API, for providers whose API has versions."
    )
    price_list: str | None = Field(
        default=None, description="The provider's id in the genai-prices package."
    )
    requests_per_minute: float | None = Field(default=None, ge=1)
    tokens_per_minute: float | None = Field(default=None, ge=1)
    wait: float = Field(default=30.0, ge=0)
    concurrency: int | None = Field(default=None, ge=1)


class RouteSettings(_Section):
    """One route; see `router.Route`."""

    targets: tuple[str, ...] = Field(
        min_length=1,
        description='The targets to try, in order: "provider", "provider/model" or '
        '"provider/model@weight". One of those with a weight is drawn to go first.',
    )
    task_type: str | None = Field(
        default=None, description='Only requests of this task type, such as "bulk_processing".'
    )
    model: str | None = Field(
        default=None,
        description='Only requests that name a model matching this pattern, such as "gpt-4*". '
        "Without it, only requests that name no model.",
    )
    min_tokens: int | None = Field(
        default=None,
        description="Only prompts with an estimated length of at least this many tokens.",
    )
    max_tokens: int | None = Field(
        default=None,
        description="Only prompts with an estimated length of at most this many tokens.",
    )


class RetrySettings(_Section):
    """See `router.resilience.Retry`."""

    attempts: int = Field(
        default=3, ge=1, description="The most calls to one provider, including the first."
    )
    base: float = Field(
        default=0.5,
        ge=0,
        description="The first pause is at most this long, in seconds; each further pause may "
        "be twice as long.",
    )
    cap: float = Field(
        default=8.0,
        ge=0,
        description="The longest pause, in seconds, unless the provider asks for a longer one.",
    )
    patience: float = Field(
        default=20.0,
        ge=0,
        description="The longest Retry-After to wait for, in seconds. If the provider asks for "
        "more, the next provider is tried.",
    )
    budget: float = Field(
        default=0.2, ge=0, description="The retries that each call adds to the retry budget."
    )


class BreakerSettings(_Section):
    """See `router.resilience.BreakerRules`."""

    failures: int = Field(
        default=5,
        ge=1,
        description="Consecutive failures after which calls to a provider are paused.",
    )
    cooldown: float = Field(
        default=30.0, ge=0, description="Seconds until the provider is tried again."
    )
    probes: int = Field(
        default=1, ge=1, description="The most trial calls in flight at once after the cooldown."
    )


_SHORTEST_SECRET = 16
"""Characters of the shortest secret of a webhook."""


class WebhookSource(_Section):
    """A sender of webhooks, received at `/webhook/NAME`.

    Attributes:
        scheme: how deliveries are signed: "standard" (Standard Webhooks, which OpenAI uses),
            "hex" (`X-Signature`) or "github" (`X-Hub-Signature-256`).
        secret: the secret that deliveries are signed with, of at least 16 characters; without
            one, every delivery is refused.
        namespaces: the only namespaces whose entries this sender may invalidate; () means all.
    """

    scheme: Literal["standard", "hex", "github"] = "standard"
    secret: SecretStr | None = None
    namespaces: tuple[str, ...] = ()

    @field_validator("secret")
    @classmethod
    def _none_if_empty(cls, value: SecretStr | None) -> SecretStr | None:
        """Treat an empty secret (from an unset variable) as missing: anybody could sign with it."""
        text = "" if value is None else value.get_secret_value().strip()
        if text in ("", "whsec_"):
            return None
        if len(text.removeprefix("whsec_")) < _SHORTEST_SECRET:
            raise ValueError(f"has fewer than {_SHORTEST_SECRET} characters, so it can be guessed")
        return value


class WebhookSettings(_Section):
    """The receiver of webhooks.

    Attributes:
        sources: the senders, by name.
        tolerance: seconds by which the signed time may differ from the clock.
        max_bytes: the largest delivery that is accepted.
        body_timeout: seconds within which a delivery must have arrived.
        max_open: the most deliveries that are received at once; others are refused with status 503.
    """

    sources: dict[str, WebhookSource] = Field(default_factory=dict)
    tolerance: float = Field(default=300.0, gt=0, le=300)  # standardwebhooks allows no more
    max_bytes: int = Field(default=1_000_000, ge=1)
    body_timeout: float = Field(default=10.0, gt=0)
    max_open: int = Field(default=64, ge=1)
