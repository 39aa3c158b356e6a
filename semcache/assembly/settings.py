"""Turns settings into arguments of `SemanticCache`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from semcache.assembly.router import flags_of, router_of
from semcache.options import GROUPS, Calls, grouped

if TYPE_CHECKING:
    from semcache.config.settings import Settings

_DECISION_OPTIONS = ("max_false_hit_rate", "threshold")


def arguments_of(settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `SemanticCache` from settings, overridden by those of the program.

    Args:
        given: the arguments that the program passes itself.

    Raises:
        ConfigError: a setting is wrong.
    """
    values = {
        name: value
        for name in settings.cache_options()
        if (value := getattr(settings, name)) is not None
    }
    for name in given:
        if name in GROUPS:  # a group that is passed replaces all settings of that group
            for option in GROUPS[name].__dataclass_fields__:
                values.pop(option, None)
    if given.keys() & {*_DECISION_OPTIONS, "trust"}:
        for name in _DECISION_OPTIONS:
            values.pop(name, None)
    arguments = {**grouped(values), **given}
    if "router" not in arguments:
        arguments["router"] = router_of(settings)
    if arguments["router"] is None:
        calls = arguments.get("calls", Calls())
        if calls.flags is None:
            arguments["calls"] = replace(calls, flags=flags_of(settings))
    return arguments
