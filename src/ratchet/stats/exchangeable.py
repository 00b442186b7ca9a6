"""Exact e-values of one block of concurrent units: which arm did the bad ones come from?

A block has N units, c of them canary.  The null hypothesis is that its labels are exchangeable
(which units went to the canary says nothing about how they went), or that the canary is
stochastically no worse.  For any positive g fixed before the block

    e = C(N, c) * prod of g(x) over the canary / esp_c(g(x_1), ..., g(x_N))

has a mean of exactly one over all labellings, where esp_c is the elementary symmetric polynomial;
for g that grows with badness it is at most one when the canary is better.  Nothing else is assumed:
neither a base rate, nor the same hour, nor the split that was asked for.

Arrays may have any leading shape (runs of a simulation); results have one more axis, the bets.
Everything is deterministic, and safe for any finite input.

References: Turner, Ly and Gruenwald, "Generic E-variables for exact sequential k-sample tests"
(2021); Vovk and Wang, "E-values" (2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Units of a block at most; a table of ln k! makes binomials a look-up.
UNITS_MAX = 20_000
_LOG_FACTORIAL: Floats = np.concatenate(
    ([0.0], np.cumsum(np.log(np.arange(1, UNITS_MAX + 1, dtype=np.float64))))
)
# A score further out than this tells no more.
SCORE_MAX = 8.0


def log_choose(n: Counts, k: Counts) -> Floats:
    """ln of the binomial coefficient; minus infinity outside of 0 <= k <= n."""
    inside = (k >= 0) & (k <= n)
    kept = np.where(inside, k, 0)
    values = _LOG_FACTORIAL[n] - _LOG_FACTORIAL[kept] - _LOG_FACTORIAL[np.where(inside, n - k, 0)]
    return np.where(inside, values, -np.inf)


def log_sum_exp(terms: Floats, axis: int = -1) -> Floats:
    """ln of the sum of exponentials, without overflow."""
    largest = np.max(terms, axis=axis, keepdims=True)
    safe = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(terms - safe), axis=axis))
    return np.asarray(total + np.squeeze(safe, axis=axis))


def log_e_binary(
    units: Counts, canary_units: Counts, bad: Counts, canary_bad: Counts, odds_ratios: Floats
) -> Floats:
    """ln e of a yes-or-no metric, for each odds ratio psi: g = psi to the power of x.

    With K bad units, k of them canary, this is the likelihood ratio of Fisher's non-central
    against the central hypergeometric distribution:
    e = psi^k C(N, c) / sum_j C(K, j) C(N - K, c - j) psi^j.
    Shapes: counts (...), odds ratios (G), result (..., G).
    """
    log_psi = np.log(odds_ratios)
    j = np.arange(int(np.max(bad, initial=0)) + 1)
    ways = log_choose(bad[..., None], j) + log_choose(
        (units - bad)[..., None], canary_units[..., None] - j
    )
    mixed = log_sum_exp(ways[..., None] + j[:, None] * log_psi, axis=-2)
    return np.asarray(
        canary_bad[..., None] * log_psi + log_choose(units, canary_units)[..., None] - mixed
    )


def log_e_tilted(scores: Floats, is_canary: NDArray[np.bool_], tilts: Floats) -> Floats:
    """ln e of a metric with many values, for each tilt theta: g = exp(theta * score).

    Scores are higher for worse and are cut at +-`SCORE_MAX`; not-a-number counts as worst.
    Shapes: scores and labels (..., N), tilts (G), result (..., G).  O(N c) for each tilt.
    """
    clean = np.nan_to_num(scores, nan=SCORE_MAX, posinf=SCORE_MAX, neginf=-SCORE_MAX)
    clean = np.clip(clean, -SCORE_MAX, SCORE_MAX)
    # Around their mean, so that products of many stay near one.
    centred = clean - np.mean(clean, axis=-1, keepdims=True)
    log_g = centred[..., None] * tilts
    canary = np.sum(np.where(is_canary[..., None], log_g, 0.0), axis=-2)
    return np.asarray(canary - _log_mean_products(log_g, np.sum(is_canary, axis=-1)))


def _log_mean_products(log_g: Floats, size: Counts) -> Floats:
    """ln of the mean, over all subsets of `size`, of the product of g.

    A_k(n), the mean over k-subsets of the first n, follows from
    A_k(n) = (n - k)/n A_k(n-1) + k/n g_n A_(k-1)(n-1).
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = np.log(_mean_products(np.exp(log_g), size))
    if np.all(np.isfinite(found)):
        return np.asarray(found)
    # Scores so far apart that their products leave the range of numbers: slower, and safe.
    return np.where(np.isfinite(found), found, _log_mean_products_safely(log_g, size))


def _mean_products(g: Floats, size: Counts) -> Floats:
    *lead, units, bets = g.shape
    most = int(np.max(size, initial=0))
    means = np.zeros((*lead, most + 1, bets))
    means[..., 0, :] = 1.0
    k = np.arange(1, most + 1)[:, None]
    for n in range(1, units + 1):
        step = (k / n) * g[..., n - 1, None, :] * means[..., :-1, :]
        means[..., 1:, :] = ((n - k) / n) * means[..., 1:, :] + step
    return np.take_along_axis(means, size[..., None, None], axis=-2)[..., 0, :]


def _log_mean_products_safely(log_g: Floats, size: Counts) -> Floats:
    """The same in log space: esp_k(n) = esp_k(n-1) + g_n esp_(k-1)(n-1)."""
    *lead, units, bets = log_g.shape
    most = int(np.max(size, initial=0))
    logs = np.full((*lead, most + 1, bets), -np.inf)
    logs[..., 0, :] = 0.0
    for n in range(units):
        logs[..., 1:, :] = np.logaddexp(
            logs[..., 1:, :], log_g[..., n, None, :] + logs[..., :-1, :]
        )
    esp = np.take_along_axis(logs, size[..., None, None], axis=-2)[..., 0, :]
    subsets = log_choose(np.full(size.shape, units, dtype=np.int64), size)
    return np.asarray(esp - subsets[..., None])
