"""Where the verifier's weights begin: written by `python -m benchmarks.verifier.prior`.

Do not edit: fit it again. One number for each of `verifier.FEATURES`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prior:
    """A normal distribution of the weights of scaled features.

    Attributes:
        centres, scales: a feature is (value - centre) / scale.
        weights: expected; deviations: how far a cache's own traffic may lie from that.
        fading: share of the prior's variance that each label brings back.
    """

    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    deviations: tuple[float, ...]
    fading: float


# ruff: noqa: E501 - numbers

WITH_MODEL = Prior(
    centres=(0, -1.43758, -1.80032, 0.785208, 1.01484, -2.70405, 0.133661, 0.0779505, 0.0109666, 0.126167, 0.171197, 0.00900607, 0.0182368, 0.0683522, 0.0106602, 0.389557, 2.49378, 2.29414, 0, 0, 0),
    scales=(1, 4.3761, 0.896836, 0.116433, 9.33097, 2.83873, 0.340288, 0.268094, 0.104146, 0.332037, 0.376681, 0.094472, 0.133807, 0.252349, 0.102697, 0.235596, 2.54782, 0.506473, 0.5, 0.2, 1),
    weights=(-0.765937, 1.39051, 0.332382, 1.33249, 0.0353622, 0.0255716, -0.86726, -0.299995, -0.0210336, -0.612091, -0.159275, -0.183094, -0.0547433, 0.0871918, -0.161987, -0.392813, 0.0673906, -0.257917, 0, 0, 0),
    deviations=(1, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.3, 0.3, 0.3),
    fading=0.0002,
)  # fmt: skip
WITHOUT_MODEL = Prior(
    centres=(0, 0, -1.80032, 0.785208, 0, 0, 0.133661, 0.0779505, 0.0109666, 0.126167, 0.171197, 0.00900607, 0.0182368, 0.0683522, 0.0106602, 0.389557, 2.49378, 2.29414, 0, 0, 0),
    scales=(1, 1, 0.896836, 0.116433, 1, 1, 0.340288, 0.268094, 0.104146, 0.332037, 0.376681, 0.094472, 0.133807, 0.252349, 0.102697, 0.235596, 2.54782, 0.506473, 0.5, 0.2, 1),
    weights=(-0.810552, 0, 0.243078, 1.75269, 0, 0, -1.36988, -0.45568, -0.143514, -0.956712, -0.365499, -0.287463, -0.0930771, 0.0709633, -0.244212, -0.544741, 0.112473, -0.233648, 0, 0, 0),
    deviations=(1, 1e-06, 0.25, 0.25, 1e-06, 1e-06, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.3, 0.3, 0.3),
    fading=0.0002,
)  # fmt: skip
