"""Tests of the finder chart, drawn without a network."""

import threading
import time

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from nebula_utils.report import finder


@pytest.fixture
def catalogue():
    """Return the Horsehead, two neighbours and one nebula on the other side."""
    return pd.DataFrame(
        {
            "name": ["B 33", "NGC 2024", "NGC 2023", "NGC 7635"],
            "type": ["dark", "emission", "reflection", "emission"],
            "ra_deg": [85.25, 85.43, 85.41, 350.2],
            "dec_deg": [-2.46, -1.85, -2.26, 61.2],
            "size_arcmin": [6.0, 30.0, 10.0, 15.0],
        }
    )


def test_projection_keeps_small_distances(catalogue):
    """NGC 2024 stands 0.61° north and 0.18° east of the Horsehead."""
    near = finder._project(catalogue.iloc[0], catalogue, side=2.0).set_index("name")
    assert list(near.index) == ["NGC 2024", "NGC 2023"]
    assert near.loc["NGC 2024", "x"] == pytest.approx(0.18, abs=0.005)
    assert near.loc["NGC 2024", "y"] == pytest.approx(0.61, abs=0.005)


def test_chart_has_east_on_the_left_and_names_the_nearest(catalogue):
    """The chart is turned as the sky is, and its title says what is nearby."""
    ax = finder.plot_finder(catalogue.iloc[0], catalogue)
    left, right = ax.get_xlim()
    assert left > right
    assert "NGC 2023 is 15′ away" in ax.get_title(loc="left")
    assert {text.get_text() for text in ax.texts} == {"B 33", "NGC 2024", "NGC 2023"}
    plt.close(ax.figure)


def test_names_never_stand_on_one_another(catalogue):
    """Where many nebulae crowd, names are moved or left out, the centre's first."""
    crowd = pd.concat([catalogue.iloc[1:2]] * 30, ignore_index=True)
    crowd = crowd.assign(name=[f"NGC {n}" for n in range(30)])
    crowd["dec_deg"] += crowd.index * 0.01 - 0.6
    ax = finder.plot_finder(catalogue.iloc[0], crowd)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert ax.texts[0].get_text() == "B 33" and 3 < len(boxes) <= 1 + finder.N_NAMES
    assert [box.count_overlaps(boxes) for box in boxes] == [1] * len(boxes)
    plt.close(ax.figure)


def test_title_names_the_nebula_around(catalogue):
    """A dark nebula in front of a large one is said to be inside it."""
    large = catalogue.assign(size_arcmin=[6.0, 90.0, 10.0, 15.0])
    ax = finder.plot_finder(large.iloc[0], large)
    assert "B 33 (dark) lies inside NGC 2024 (emission)" in ax.get_title(loc="left")
    plt.close(ax.figure)


@pytest.mark.parametrize("watched", ["", "01_catalogue.ipynb"])
def test_only_a_notebook_that_is_open_asks_the_network(catalogue, monkeypatch, watched):
    """Papermill and nbval get the chart at once; Jupyter waits two seconds at most."""
    asked = threading.Event()

    def hang(*_, **__):
        asked.set()
        time.sleep(9)

    monkeypatch.setenv("JPY_SESSION_NAME", watched)
    monkeypatch.setattr(finder.socket, "create_connection", hang)
    monkeypatch.setattr(finder, "TIMEOUT_S", 0.2)
    start = time.monotonic()
    assert isinstance(finder.show_sky(catalogue.iloc[0], catalogue), Figure)
    assert asked.is_set() == bool(watched)
    assert time.monotonic() - start < 30


def test_without_a_network_a_figure_comes_back(catalogue):
    """Offline a finder chart takes the place of the live sky."""
    lonely = catalogue.iloc[3]
    figure = finder.show_sky(lonely, catalogue, online=False)
    assert isinstance(figure, Figure)
    assert "stands alone" in figure.axes[0].get_title(loc="left")


def test_online_a_live_sky_comes_back(catalogue):
    """Online, the widget looks at the nebula."""
    widget = finder.show_sky(catalogue.iloc[0], catalogue, online=True)
    assert type(widget).__name__ == "Aladin"


def test_pole_and_unknown_size_are_no_trouble(catalogue):
    """A nebula at the pole without a size gets a chart of the smallest side."""
    pole = {"name": "X", "dec_deg": 90.0, "ra_deg": 0.0, "size_arcmin": float("nan")}
    assert finder._choose_side(pole["size_arcmin"]) == finder.MIN_SIDE_DEG
    assert finder._project(pole, catalogue, 2.0).empty
