"""What the charts of the bias say follows from the numbers, whatever they are."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from nebula_utils.report import charts
from nebula_utils.training.scores import Predictions


@pytest.fixture(autouse=True)
def close_figures():
    """Close what a test drew."""
    yield
    plt.close("all")


def respond(*p_dark):
    """Return the response of one head to growing dust before two nebulae."""
    rows = [
        ("plain", "as it is", nebula, float(dose), p)
        for nebula in "ab"
        for dose, p in enumerate(p_dark)
    ]
    return pd.DataFrame(rows, columns=["head", "colour", "nebula", "a_v", "p_dark"])


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ((0.1, 0.4, 0.8), "0.10 → 0.80 (plain)"),
        ((0.25, 0.3, 0.25), "0.25 → 0.25 (plain)"),
        ((0.6, 0.5, 0.2), "0.60 → 0.20 (plain)"),
    ],
)
def test_a_curve_is_told_as_it_is(curve, said):
    """The ends of a rising, a flat and a falling curve are told as they are."""
    response = respond(*curve)
    assert said in charts.describe_response(response)
    ax = charts.plot_dose_response(response)
    assert said in " ".join(ax.get_title("left").split())


def test_grid_counts_each_change_with_its_own_answers():
    """A head that is right as it is and wrong in grey loses all its points."""
    y = np.repeat([0, 1], 6)
    groups = np.array([f"N {i}" for i in range(12)])
    right = Predictions(y, np.eye(2)[y][None], groups, ("dark", "emission"))
    wrong = dataclasses.replace(right, y_proba=np.eye(2)[1 - y][None])
    under = {"plain": {"as_is": right, "grey": wrong}}
    axes = charts.plot_confusion_grid(under, ("as_is", "grey"))
    assert [ax.get_title() for ax in axes[0]] == ["as it is: 1.00", "greyscale: 0.00"]
    assert "costs: 100 (plain)" in axes[0, 0].get_label()
