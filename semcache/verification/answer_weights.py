"""Weights of the model that compares two answers.

Written by `python -m benchmarks.verifier.judge_fit`: do not edit.
"""

from __future__ import annotations

BIAS = -1.4428
WEIGHTS: tuple[float, ...] = (
    0.0374,  # cover
    -2.1545,  # cover_squared
    0.2084,  # cover_least
    1.2693,  # head
    -0.0109,  # head_least
    1.1050,  # trigrams
    1.4613,  # trigrams_squared
    0.9893,  # trigram_jaccard
    -0.3607,  # names_cover
    0.2433,  # names_both
    0.2183,  # name_shared
    0.2221,  # names_all
    -0.2641,  # names_left
    -0.2682,  # number_conflict
    -0.5922,  # numbers_left
    0.0032,  # months_conflict
    -0.5759,  # asks_number
    -0.2087,  # asks_number_conflict
    1.9239,  # asks_number_cover
    1.3003,  # asks_other_cover
    -1.3317,  # asks_other_conflict
    -1.2236,  # polarity
    0.2005,  # opposite
    -0.7010,  # refuses
    -1.6461,  # hedges
    0.2872,  # words_short
    -0.0531,  # words_long
    0.4309,  # bare
)
"""In the order of `answer_comparison.FEATURES`."""
