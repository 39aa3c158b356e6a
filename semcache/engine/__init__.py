"""The walk of a call: lookup, coalescing, asking the model, recording, and what follows a hit."""
