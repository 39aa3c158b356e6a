"""Other caches, each driven as its own documentation says, in an environment of its own."""
