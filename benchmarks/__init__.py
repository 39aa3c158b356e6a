"""Measurements. Each module runs by `python -m benchmarks.NAME` and says what it needs."""
