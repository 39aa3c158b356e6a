"""Ways of finding the nearest vectors."""
