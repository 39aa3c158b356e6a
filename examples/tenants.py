"""Several tenants in one cache: an answer is only ever served inside its own namespace.

python examples/tenants.py
"""

from __future__ import annotations

import tempfile

import semcache

HOURS = {"bakery": "We open at six.", "bank": "We open at nine."}


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        # One hit in 25 is refused at random, to learn from the fresh answer; here, none is, so that
        # the output is always the same.
        semcache.SemanticCache(directory, calls=semcache.Calls(draw=lambda: 0.5)) as cache,
    ):
        # The namespace is computed from the call's own arguments.
        @cache.cached(model="support-1", namespace=lambda tenant, prompt: tenant)
        def ask(tenant: str, prompt: str) -> str:
            print(f"  (the model is asked for {tenant})")
            return HOURS[tenant]

        for tenant in ("bakery", "bank", "bakery"):
            print(tenant, "->", ask(tenant, "When do you open?"))

        print("asked in other words:", ask("bank", "when do you open"))
        print(ask.cache_info())

        # A tenant leaves: everything of theirs goes, and nothing of anybody else's.
        print("deleted:", cache.invalidate(namespace="bakery"))
        print("left:", len(cache))


if __name__ == "__main__":
    main()
