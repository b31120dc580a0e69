"""Figures of the catalogue: each says its number in the title."""

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
