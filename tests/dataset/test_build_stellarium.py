"""The reader of Stellarium's textures.json in scripts/build_stellarium_csv.py."""

import json
import math
import sys

import numpy as np
import pytest

from nebula_utils import config
from nebula_utils.errors import SourceError

sys.path.insert(0, str(config.REPOSITORY / "scripts"))
from build_stellarium_csv import read_textures_json

ODD = """{
 "shortName": "Nebulae", // "a comment
 "subTiles" : [ # another
  { "imageCredits" : {"Short" : "A  B", "infoUrl": "https://x.org/a,]b"},
    "imageUrl" : "m2.png",
    "worldCoords" : [[[10.5,-.5], [9.5,-.5], [9.5,+0.5], [10.5,.5]]], },
  /* two
     lines */
  { "imageUrl" : "none.png" },
  { "imageUrl" : "m2.png", "worldCoords" : [[[1,1], [2,1], [2,2], [1,2.]]] },
 ]
}"""


def describe(tmp_path, corners):
    """Read a list of one tile with these corners."""
    path = tmp_path / "textures.json"
    tile = {"imageUrl": "a.png", "worldCoords": [corners]}
    path.write_text(json.dumps({"subTiles": [tile]}))
    return read_textures_json(path).iloc[0]


def test_odd_json_is_read(tmp_path):
    """Comments, bare decimal points and last commas don't stop the reader."""
    (tmp_path / "textures.json").write_text(ODD)
    table = read_textures_json(tmp_path)
    assert list(table["file"]) == ["m2.png", "none.png"]
    assert list(table["credit"]) == ["A B", ""]
    assert table.loc[0, "ra_deg"] == pytest.approx(10)
    assert table.loc[0, "dec_deg"] == pytest.approx(0, abs=1e-4)
    assert table.loc[0, "size_arcmin"] == pytest.approx(60, rel=1e-3)
    assert math.isnan(table.loc[1, "ra_deg"])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"subTiles": [{}]}', '{"subTiles": [1]}', "\udcff"]
)
def test_other_json_is_refused(tmp_path, text):
    """Anything but a list of tiles is a SourceError that names the file."""
    path = tmp_path / "textures.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SourceError, match=r"textures\.json"):
        read_textures_json(path)


@pytest.mark.parametrize("west", [-0.5, 359.5])
def test_centre_across_ra_0(tmp_path, west):
    """A texture across RA 0 has its centre there, not on the other side."""
    corners = [[0.7, 19.9], [west, 19.9], [west, 20.1], [0.7, 20.1]]
    found = describe(tmp_path, corners)
    assert found["ra_deg"] == pytest.approx(0.1, abs=1e-3)
    assert found["dec_deg"] == pytest.approx(20, abs=5e-3)
    assert found["size_arcmin"] == pytest.approx(72 * np.cos(np.radians(20)), rel=1e-3)


def test_size_is_the_mean_of_opposite_sides(tmp_path):
    """A trapezium counts with the mean of its two long sides."""
    found = describe(tmp_path, [[0, 0], [2, 0], [1.5, 0.5], [0.5, 0.5]])
    assert found["size_arcmin"] == pytest.approx(90, rel=1e-3)
