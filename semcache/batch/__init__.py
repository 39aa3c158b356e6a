"""Answers a file of requests and writes the answers to another file."""

from semcache.batch.processor import BatchProcessor, BatchReport, Progress

__all__ = ["BatchProcessor", "BatchReport", "Progress"]
