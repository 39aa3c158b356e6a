"""From settings to the arguments of `SemanticCache`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from semcache.assembly.router import flags_of, router_of
from semcache.options import GROUPS, Calls, grouped

if TYPE_CHECKING:
    from semcache.config.settings import Settings

_DECIDES = ("max_false_hit_rate", "threshold")


def arguments_of(settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that settings stand for, with what a program says itself before them.

    Args:
        given: arguments of `SemanticCache`.

    Raises:
        ConfigError: a setting is wrong.
    """
    said = {
        name: value
        for name in settings.cache_options()
        if (value := getattr(settings, name)) is not None
    }
    for name in given:
        if name in GROUPS:  # a whole group given by the program stands for the settings' own
            for option in GROUPS[name].__dataclass_fields__:
                said.pop(option, None)
    if given.keys() & {*_DECIDES, "trust"}:
        for name in _DECIDES:
            said.pop(name, None)
    arguments = {**grouped(said), **given}
    if "router" not in arguments:
        arguments["router"] = router_of(settings)
    if arguments["router"] is None:
        calls = arguments.get("calls", Calls())
        if calls.flags is None:
            arguments["calls"] = replace(calls, flags=flags_of(settings))
    return arguments
