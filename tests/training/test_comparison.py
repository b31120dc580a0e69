"""Probes say what embeddings know, and what chance would."""

import numpy as np
import pytest

from nebula_utils.training.comparison import probe, share_neighbours


def test_neighbours_of_two_clumps():
    """Two tight clumps of one value each: every neighbour has it, against one third."""
    X = np.array([[1, 0], [1, 0.1], [-1, 0], [-1, 0.1]], np.float32)
    assert share_neighbours(X, np.array([0, 0, 1, 1])) == (1, pytest.approx(1 / 3))
    assert share_neighbours(X, np.array([0, 1, 0, 1]))[0] == 0


def test_a_linear_trait_is_read_and_noise_is_not():
    """Near 1 where a direction holds the answer, near chance where nothing does."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 20)).astype(np.float32)
    groups = np.repeat([f"N {i}" for i in range(150)], 2)
    told = probe(X, (X[:, 0] > 0).astype(int), groups)
    noise = probe(X, rng.integers(0, 2, 300), groups)
    assert told[0] > 0.85 and told[1] == 0.5
    assert abs(noise[0] - 0.5) < 0.1


def test_no_nebula_is_on_both_sides():
    """Traits that only the nebula tells are not read: that would be a leak."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 30))
    X = np.repeat(centres, 5, 0) + 0.01 * rng.normal(size=(300, 30))
    y = np.repeat(rng.integers(0, 2, 60), 5)
    groups = np.repeat([f"N {i}" for i in range(60)], 5)
    assert probe(X.astype(np.float32), y, groups)[0] < 0.7
