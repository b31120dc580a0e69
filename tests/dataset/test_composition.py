"""Tests of the measured association between colour and type."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nebula_utils.dataset.manifest import (
    compute_association,
    compute_cramers_v,
    tabulate_composition,
    tabulate_photographers,
)
from nebula_utils.report.charts import plot_composition


def make_manifest(n_nebulae: int, per_nebula: int, source: str = "stellarium"):
    """Return pictures of alternating dark and emission nebulae."""
    nebulae = np.repeat(np.arange(n_nebulae), per_nebula)
    return pd.DataFrame(
        {
            "source": source,
            "nebula": [f"{source} {number}" for number in nebulae],
            "label": np.where(nebulae % 2 == 0, "dark", "emission"),
        }
    )


def test_perfect_association_is_one():
    """Colour that tells the type exactly gives V = 1."""
    assert compute_cramers_v(np.array([[50, 0], [0, 50]])) == pytest.approx(1)


def test_independence_is_zero():
    """Equal shares give V = 0."""
    assert compute_cramers_v(np.array([[30, 60], [10, 20]])) == 0


def test_bias_correction_matches_bergsma():
    """A worked example: the correction lowers V from 0.2 to 0.174."""
    counts = np.array([[30, 20], [20, 30]])
    n, phi2 = 100, 0.04
    corrected = phi2 - 1 / (n - 1)
    expected = np.sqrt(corrected / (1 - 1 / (n - 1)))
    assert compute_cramers_v(counts) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(0.174, abs=1e-3)


@pytest.mark.parametrize("counts", [[[5, 5]], [[5], [5]], [[5, 0], [7, 0]], [[0, 0]]])
def test_one_class_or_palette_is_undefined(counts):
    """Nothing can be measured with one class or one palette."""
    assert np.isnan(compute_cramers_v(np.array(counts)))


def test_authors_flaw_is_found():
    """Grey photos for one class and colourful ones for the other give V = 1."""
    manifest = make_manifest(40, 2)
    palettes = np.where(manifest["label"] == "dark", "mono", "red")
    found = compute_association(manifest, palettes)["all"]
    assert found["cramers_v"] == pytest.approx(1)
    assert found["p_value"] == pytest.approx(1 / 1000)
    assert (found["n_images"], found["n_nebulae"]) == (80, 40)


def test_same_palettes_for_every_type_show_no_association():
    """With each nebula both in grey and in colour, colour says nothing."""
    manifest = make_manifest(40, 2)
    palettes = np.tile(["mono", "red"], 40)
    found = compute_association(manifest, palettes)["all"]
    assert found["cramers_v"] == 0 and found["p_value"] == 1


def test_many_pictures_of_few_nebulae_are_no_evidence():
    """Twenty pictures of each of six nebulae must not pass for 120 witnesses."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(20):
        manifest = make_manifest(6, 20)
        palettes = np.repeat(rng.choice(["mono", "red"], 6), 20)
        found = compute_association(manifest, palettes)["all"]
        small += found["p_value"] < 0.05
    assert small <= 1


def test_sources_are_measured_apart():
    """One source may carry the flaw and the other be clean."""
    flawed, clean = make_manifest(40, 2), make_manifest(40, 2, "hips")
    manifest = pd.concat([flawed, clean], ignore_index=True)
    palettes = np.concatenate(
        [
            np.where(flawed["label"] == "dark", "mono", "red"),
            np.tile(["mono", "red"], 40),
        ]
    )
    found = compute_association(manifest, palettes)
    assert list(found) == ["all", "stellarium", "hips"]
    assert found["stellarium"]["cramers_v"] == pytest.approx(1)
    assert found["hips"]["cramers_v"] == 0


def test_result_depends_on_the_seed_only():
    """The same seed gives the same numbers, and the global generator is left alone."""
    manifest = make_manifest(12, 1)
    palettes = ["mono", "red", "red"] * 4
    before = np.random.get_state()[1].copy()
    first = compute_association(manifest, palettes, random_state=3)
    assert first == compute_association(manifest, palettes, random_state=3)
    assert (np.random.get_state()[1] == before).all()


def test_table_counts_pictures_and_nebulae():
    """Rows are sources and classes in the usual order, columns palettes and totals."""
    manifest = make_manifest(4, 3)
    table = tabulate_composition(manifest, ["mono", "red", "red"] * 4)
    assert list(table.index) == [("stellarium", "dark"), ("stellarium", "emission")]
    assert table.loc[("stellarium", "dark")].to_dict() == {
        "mono": 2,
        "red": 4,
        "images": 6,
        "nebulae": 2,
    }


def test_figure_says_what_was_found():
    """The title carries the measured value, and every class is drawn once."""
    import matplotlib.pyplot as plt

    manifest = make_manifest(40, 2)
    palettes = np.where(manifest["label"] == "dark", "mono", "red")
    ax = plot_composition(tabulate_composition(manifest, palettes))
    assert "V = 1.00" in ax.get_title(loc="left")
    drawn = [dots for dots in ax.collections if dots.get_label()[0] != "_"]
    assert len(drawn) == 2
    shares = [point[0] for dots in drawn for point in dots.get_offsets()]
    assert sorted(shares) == [0, 0, 100, 100]
    plt.close(ax.figure)


def test_photographers_are_counted_by_class(tmp_path):
    """The busiest photographer and his share stand beside the pictures' sides."""
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "a.png")
    manifest = pd.DataFrame(
        {
            "label": ["dark", "dark", "dark", "emission"],
            "credit": ["A", "A", "B", "B"],
            "path": [tmp_path / "a.png"] * 4,
        }
    )
    table = tabulate_photographers(manifest)
    assert list(table.index) == ["dark", "emission"]
    assert table.loc["dark", ["photographers", "busiest", "share"]].tolist() == [
        2, "A", 0.67
    ]  # fmt: skip
    assert table.loc["dark", "shorter side, px"] == "20 / 20 / 20"
