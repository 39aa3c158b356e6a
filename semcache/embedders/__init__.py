"""Ways of turning texts into vectors."""
