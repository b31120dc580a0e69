"""Figures of the catalogue: each says its number in the title."""

import types

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from nebula_utils.config import CLASS_NAMES
from nebula_utils.report import sky
from nebula_utils.report.drawing import CLASS_LABELS, CLASS_STYLE


@pytest.fixture
def table():
    """Return four nebulae: three in the galactic plane, one at its pole."""
    return pd.DataFrame(
        {
            "name": ["A", "B", "C", "D"],
            "type": ["dark", "dark", "planetary", "emission"],
            "ra_deg": [266.4, 266.0, 265.0, 192.86],
            "dec_deg": [-28.9, -28.0, -29.0, 27.13],
            "size_arcmin": [10.0, 30.0, 0.5, float("nan")],
        }
    )


@pytest.fixture(autouse=True)
def close_figures():
    """Leave no figure open."""
    yield
    plt.close("all")


def test_every_class_has_a_style_of_its_own():
    """No two classes share a colour, a marker or a name on screen."""
    assert set(CLASS_STYLE) == set(CLASS_LABELS) == set(CLASS_NAMES)
    for values in (
        {style["color"] for style in CLASS_STYLE.values()},
        {style["marker"] for style in CLASS_STYLE.values()},
        set(CLASS_LABELS.values()),
    ):
        assert len(values) == len(CLASS_NAMES)


def test_sky_map_puts_the_galactic_centre_in_the_middle(table):
    """The centre is at (0, 0), the pole on top; the share near the plane is told."""
    ax = sky.plot_sky_map(table)
    points = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    assert points["dark (2)"][0] == pytest.approx([0, 0], abs=0.01)
    assert points["emission (1)"][0][1] == pytest.approx(1.5708, abs=0.01)
    assert ax.get_title("left").startswith("75% lie within 10°")


def test_sky_map_draws_longitude_to_the_left(table):
    """A nebula at l = 90° stands left of the centre, as the sky is seen."""
    cygnus = table.iloc[:1].assign(ra_deg=318.0, dec_deg=48.33)
    ax = sky.plot_sky_map(cygnus)
    assert ax.get_lines()[0].get_xdata()[0] == pytest.approx(-1.5708, abs=0.02)


def test_size_distribution_leaves_unknown_sizes_out(table):
    """A type without a single size has no box."""
    ax = sky.plot_size_distribution(table)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["planetary (1)", "dark (2)"]
    assert "30″ (planetary) to 20′ (dark)" in ax.get_title("left")


def test_coverage_counts_nebulae_not_images(table):
    """Two images of one nebula cover one; an unknown name covers none."""
    manifest = pd.DataFrame({"nebula": ["A", "A", "D", "M 31"]})
    ax = sky.plot_coverage(table, manifest)
    assert ax.get_title("left").strip() == "2 of 4 nebulae have an image"
    assert "1 of 2" in [text.get_text() for text in ax.texts]


def test_conflicts_are_counted_by_type():
    """Guesses count as types, disputed sizes do not; the sum is in the title."""
    rows = [
        ("type", "emission", "reflection"),
        ("type", "reflection", "emission?"),
        ("type", "emission", "other"),
        ("size", "5", "20"),
    ]
    conflicts = pd.DataFrame(rows, columns=["field", "chosen", "rejected"])
    ax = sky.plot_conflicts(conflicts)
    assert ax.get_title("left").startswith("2 of 3 are between")
    cells = [text.get_text() for text in ax.texts[:-1]]
    assert list(filter(None, cells)) == ["1"] * 3


def test_figures_are_drawn_where_asked(table):
    """A given Axes is used and returned."""
    _, ax = plt.subplots()
    assert sky.plot_size_distribution(table, ax=ax) is ax


@pytest.fixture
def around():
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


def choose(table, row=0, **changes):
    """Return a row of the table as `plot_finder` takes a nebula."""
    return types.SimpleNamespace(**(table.iloc[row].to_dict() | changes))


def test_projection_keeps_small_distances(around):
    """NGC 2024 stands 0.61° north and 0.18° east of the Horsehead."""
    near = sky._project(choose(around), around, side=2.0).set_index("name")
    assert list(near.index) == ["NGC 2024", "NGC 2023"]
    assert near.loc["NGC 2024", "x"] == pytest.approx(0.18, abs=0.005)
    assert near.loc["NGC 2024", "y"] == pytest.approx(0.61, abs=0.005)


def test_chart_has_east_on_the_left_and_names_the_nearest(around):
    """The chart is turned as the sky is, and its title says what is nearby."""
    ax = sky.plot_finder(choose(around), around)
    left, right = ax.get_xlim()
    assert left > right
    assert "NGC 2023 is 15′ away" in ax.get_title(loc="left")
    names = {text.get_text() for text in ax.texts}
    assert {"B 33", "NGC 2024", "NGC 2023"} <= names


def test_names_never_stand_on_one_another(around):
    """Where many nebulae crowd, names are moved or left out, the centre's first."""
    crowd = pd.concat([around.iloc[1:2]] * 30, ignore_index=True)
    crowd = crowd.assign(name=[f"NGC {n}" for n in range(30)])
    crowd["dec_deg"] += crowd.index * 0.01 - 0.6
    ax = sky.plot_finder(choose(around), crowd)
    texts = [text for text in ax.texts if text.get_text().startswith(("B", "NGC"))]
    boxes = [text.get_window_extent() for text in texts]
    assert texts[0].get_text() == "B 33" and 3 < len(boxes) <= 1 + sky.N_NAMES
    assert [box.count_overlaps(boxes) for box in boxes] == [1] * len(boxes)


def test_title_names_the_nebula_around(around):
    """A dark nebula in front of a large one is said to be inside it."""
    large = around.assign(size_arcmin=[6.0, 90.0, 10.0, 15.0])
    ax = sky.plot_finder(choose(large), large)
    assert "B 33 (dark) lies inside NGC 2024 (emission)" in ax.get_title(loc="left")


def test_pole_and_unknown_size_are_no_trouble(around):
    """A lonely nebula at the pole without a size gets the smallest chart."""
    pole = choose(around, dec_deg=90.0, ra_deg=0.0, size_arcmin=None)
    ax = sky.plot_finder(pole, around)
    assert "stands alone" in ax.get_title(loc="left")
    assert ax.get_xlim()[0] == sky.CHART_SIDES[0] / 2
