"""One call from start to end: lookup, coalescing, asking the model, recording, work after a hit."""
