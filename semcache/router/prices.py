"""The cost of an answer, from its tokens and the price lists of the `genai-prices` package."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import lru_cache
from typing import Any

from semcache.types import Usage


def priced(usage: Usage, *, model: str, price_list: str | None) -> Usage:
    """The usage with its cost in USD, unless it already has one.

    The cost stays None, never 0, if the model, the provider or a number of tokens is unknown.

    Args:
        price_list: the provider's id in genai-prices; None means that it has no prices.
    """
    if usage.cost_usd is not None or price_list is None:
        return usage
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return usage
    cost = cost_usd(
        model,
        price_list,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
    )
    return usage if cost is None else replace(usage, cost_usd=cost)


@lru_cache(maxsize=4096)
def cost_usd(
    model: str,
    price_list: str,
    prompt_tokens: int,
    completion_tokens: int,
    cached_tokens: int | None = None,
    cache_write_tokens: int | None = None,
) -> float | None:
    """The cost of these numbers of tokens in USD; None if it is not known.

    Args:
        prompt_tokens: the whole prompt, including tokens read from or written to a cache.
    """
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    counts: dict[str, Any] = {"input_tokens": prompt_tokens, "output_tokens": completion_tokens}
    if cached_tokens:
        counts["cache_read_tokens"] = cached_tokens
    if cache_write_tokens:
        counts["cache_write_tokens"] = cache_write_tokens
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            price = calc_price(Tokens(**counts), model, provider_id=price_list)
    except (LookupError, ValueError):
        return None
    return float(price.total_price)


def per_million(model: str, price_list: str | None) -> tuple[float, float] | None:
    """(USD per million prompt tokens, per million completion tokens); None if not known."""
    if price_list is None:
        return None
    # Ask for a thousand tokens, not a million: some prices rise with the length of the prompt.
    prompt = cost_usd(model, price_list, 1_000, 0)
    completion = cost_usd(model, price_list, 0, 1_000)
    return None if prompt is None or completion is None else (prompt * 1_000, completion * 1_000)
