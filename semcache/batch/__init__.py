"""Many requests from a file to a file."""

from semcache.batch.processor import BatchProcessor, BatchReport, Progress

__all__ = ["BatchProcessor", "BatchReport", "Progress"]
