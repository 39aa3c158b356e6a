"""Models that take over a task type while a feature flag is on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preference:
    """While `flag` is on, requests of `task_type` that name no model try this model first.

    It has no effect where the provider is not configured.
    """

    flag: str
    task_type: str
    provider: str
    model: str


PREFERENCES = (
    Preference("use_deepseek_for_bulk", "bulk_processing", "openrouter", "deepseek/deepseek-chat"),
)
