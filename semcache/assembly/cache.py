"""Builds an engine from options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from semcache.assembly.embedding import choose_embedder, question_embedder
from semcache.assembly.verification import check_trust, verification_of
from semcache.backends.opening import open_backend
from semcache.engine.engine import Engine
from semcache.engine.record import StoragePolicy
from semcache.keys import keys
from semcache.lifecycle import LIFECYCLE
from semcache.options import MAX_FALSE_HIT_RATE
from semcache.privacy.personal import PersonalData
from semcache.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from semcache.options import Options, Trust
    from semcache.router import Router
    from semcache.telemetry.events import Hook


def open_engine(
    location: str,
    options: Options,
    *,
    backend_options: object,
    router: Router | None,
    hooks: Sequence[Hook],
) -> Engine:
    """Open a backend and build an engine on it.

    Raises:
        ConfigError: an option has an invalid value.
        StoreError: the backend cannot be opened.
        IndexMismatchError: the stored vectors come from another embedder.
    """
    trust, matching, calls = options.trust, options.matching, options.calls
    privacy = options.privacy
    check_trust(trust)
    rules = keys.key_rules(matching.ignore, matching.context)
    personal_data = None if privacy.detect is None else PersonalData(privacy)
    backend = open_backend(location, options=backend_options)
    try:
        telemetry = Telemetry(backend.counters, hooks)
        embedder = choose_embedder(matching.embedder, backend) if matching.semantic else None
        entries = backend.entries(
            fingerprint=lambda: "" if embedder is None else embedder.fingerprint,
            retention=options.retention,
            clock=calls.clock,
            fault=telemetry.fault,
            before_eviction=telemetry.counters.flush,  # so that the latest hits count as use
        )
        embedding = None if embedder is None else question_embedder(embedder, matching)
        verification = verification_of(
            trust,
            backend=backend,
            embedder=embedder,
            router=router,
            telemetry=telemetry,
            clock=calls.clock,
        )
        leases = None if calls.coalesce == "off" else backend.leases(telemetry.fault)
        flags = calls.flags or (None if router is None else router.flags)
        engine = Engine(
            backend,
            entries,
            leases=leases,
            embedder=embedder,
            embedding=embedding,
            verification=verification,
            telemetry=telemetry,
            rules=rules,
            retention=options.retention,
            storage=StoragePolicy(calls.store_truncated, calls.store_tool_calls),
            flags=flags,
            clock=calls.clock,
            draw=calls.draw,
            audit=trust.audit,
            personal_data=personal_data,
            hit_delay=privacy.hit_delay,
            policy=_policy_json(trust, semantic=embedder is not None),
        )
    except BaseException:
        backend.close()
        raise
    LIFECYCLE.add(engine)
    return engine


def _policy_json(trust: Trust, *, semantic: bool) -> str | None:
    """The options that decide what is served, as JSON; None for a custom policy."""
    if not semantic:
        return json.dumps({"semantic": False})
    if trust.policy is not None:
        return None
    if trust.threshold is not None:
        return json.dumps({"threshold": trust.threshold})
    return json.dumps({"max_false_hit_rate": trust.max_false_hit_rate or MAX_FALSE_HIT_RATE})
