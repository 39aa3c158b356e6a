"""Adds a missing namespace or model to logged requests, so that a log can fill a cache."""

from __future__ import annotations

from dataclasses import replace

from semcache.keys.parse import name_of, request
from semcache.types import Request

_DEFAULT_NAMESPACE = request("-").namespace


def completed(call: Request, namespace: str | None, model: str | None) -> Request:
    """The request, with this namespace and model filled in where it has none.

    Raises:
        RequestError: a name is empty.
    """
    if namespace is not None and call.namespace == _DEFAULT_NAMESPACE:
        call = replace(call, namespace=name_of(namespace, "namespace", _DEFAULT_NAMESPACE))
    if model is not None and not call.model:
        call = replace(call, model=name_of(model, "model", ""))
    return call
