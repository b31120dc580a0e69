"""Where the evidence lies against chance, and how much colour an answer takes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_classifier import make_classifier
from PIL import Image

from nebula_utils.bias import measures
from nebula_utils.catalogue.table import find
from nebula_utils.config import CLASS_NAMES
from nebula_utils.counterfactuals.colour import Shift, find_flips
from nebula_utils.features.evidence import cut_tiles, join_tiles, measure_share
from nebula_utils.training.heads import make_linear_head

OUTLINE = """# hours, degrees
05.5600 -05.60 start  M 42
05.5600 -05.20 vertex
05.5733 -05.20 vertex
05.5733 -05.60 end
"""


@pytest.fixture
def row(tmp_path: Path) -> dict:
    """Write a texture of 2° around M 42, north up, its left half (east) red."""
    pixels = np.full((200, 200, 3), 30, np.uint8)
    pixels[100:140, 80:120, 0] = 250  # where the outline below lies
    Image.fromarray(pixels).save(tmp_path / "m42.png")
    ra, dec = 83.5, -5.2
    corners = [
        [ra + 1, dec - 1],
        [ra - 1, dec - 1],
        [ra - 1, dec + 1],
        [ra + 1, dec + 1],
    ]
    (tmp_path / "textures.json").write_text(
        '{"imageUrl" : "m42.png", // not JSON\n'
        f'"worldCoords" : [{str([corners])[1:-1]}], "textureCoords" : []}}'
    )
    (tmp_path / "outlines.dat").write_text(OUTLINE)
    name = find("M 42").name
    return {"path": str(tmp_path / "m42.png"), "nebula": name, "label": "emission"}


def test_an_outline_lies_where_the_sky_says(row: dict) -> None:
    """0.2° by 0.4° south of the middle of a 2° picture: to within two pixels."""
    mask, shape = measures.make_mask(row, (200, 200))
    top, left = (np.flatnonzero(mask.any(axis)) / 256 * 2 for axis in (1, 0))
    assert shape == "outline" and mask.shape == (256, 256)
    assert (top[0], top[-1]) == pytest.approx((1.0, 1.4), abs=0.03)
    # East is left: the outline reaches from 0.1° east to 0.1° west of the middle.
    assert (left[0], left[-1]) == pytest.approx((0.9, 1.1), abs=0.03)


def test_without_an_outline_the_catalogue_gives_a_circle(row: dict) -> None:
    """A nebula of known size is a circle; without corners nothing is known."""
    mask, shape = measures.make_mask({**row, "nebula": find("M 43").name}, (200, 200))
    assert shape == "circle" and mask.any()
    assert measures.make_mask({**row, "path": "/elsewhere/x.png"}, (9, 9))[0] is None


def test_evidence_on_the_nebula_is_above_chance(row: dict) -> None:
    """A head that likes red finds its evidence inside the outline of the red spot."""
    classifier = make_classifier()
    red = classifier.backbone.weights[0]
    coef = np.zeros((8, 7), np.float32)
    coef[:, 1] = red / np.square(red).sum()
    head = make_linear_head(CLASS_NAMES, coef, np.zeros(7, np.float32))
    seeing = replace(classifier, head=head, views=classifier.views[:1])
    (found,) = measures.measure_localisation(seeing, [row])
    assert found["shape"] == "outline" and found["label"] == "emission"
    assert found["chance"] == pytest.approx(0.2 * 0.4 / 4, abs=0.004)
    assert found["share"] > 2 * found["chance"] and np.isnan(found["others"])
    twice = measures.measure_localisation(seeing, [row, row])
    # The same picture twice: the others' evidence lies where its own does.
    assert twice[0]["others"] == pytest.approx(found["share"], abs=0.03)
    assert measures.measure_localisation(seeing, [{**row, "label": "comet"}]) == []


def test_even_evidence_has_the_share_of_chance() -> None:
    """What is spread evenly over what was seen tells nothing; borders don't count."""
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    seen = np.zeros((8, 12), np.float32)
    seen[1:-1, 1:-1] = 1
    share, chance = measure_share(3 * seen, mask, seen)
    assert share == pytest.approx(chance) and chance > mask.mean()
    assert np.isnan(measure_share(-np.ones_like(seen), mask, seen)[0])


@pytest.mark.parametrize("size", [(300, 300), (200, 640), (900, 64), (64, 1500)])
def test_tiles_of_a_constant_join_to_that_constant(size: tuple[int, int]) -> None:
    """Where tiles overlap nothing is counted twice, in any format of picture."""
    tiles = cut_tiles(np.full((*size, 3), 100, np.uint8), 64)
    assert all(tile.shape == (64, 64, 3) for tile in tiles.pictures)
    joined = join_tiles(np.full((len(tiles.pictures), 4, 4, 2), 5.0), tiles)
    covered = joined[..., 0] > 0
    assert joined[covered] == pytest.approx(5, rel=1e-5)
    assert covered.all() or max(size) / min(size) > 5


def test_the_smallest_flip_is_found() -> None:
    """An answer that flips at a turn of −70° and below 30 % saturation."""

    def predict(changes: list[Shift]) -> np.ndarray:
        flips = [
            s.hue < -70 or s.saturation < 0.3 or s.palette == "SHO" for s in changes
        ]
        return np.eye(2)[np.array(flips, int)]

    hue, paler, palette = find_flips(predict)
    assert -75 < hue.shift.hue < -70 and hue.label == 1
    assert 0.25 <= paler.shift.saturation < 0.3
    assert palette.shift == Shift(palette="SHO")
    assert find_flips(lambda changes: np.eye(2)[np.zeros(len(changes), int)]) == []


def test_flip_distances_of_pictures(row: dict) -> None:
    """Each row says the answer and the least change, none as infinitely far."""
    (found,) = measures.measure_flip_distances(make_classifier(), [row])
    assert found["answer"] in CLASS_NAMES and found["label"] == "emission"
    assert 0 < found["hue"] <= 180 or found["hue"] == np.inf
    assert -1 <= found["saturation"] < 1
