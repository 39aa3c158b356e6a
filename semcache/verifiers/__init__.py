"""Adapters that look at two questions at once."""
