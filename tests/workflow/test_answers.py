"""`nebula frame`: what it prints, writes and says where a picture knows no place."""

import json
import re

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from nebula_utils.errors import ModelError
from nebula_utils.workflow import cli

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def picture(tmp_path):
    """Write a FITS picture of Orion with its WCS."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [83.82, -5.39]
    wcs.wcs.crpix, wcs.wcs.cdelt = [200.5, 150.5], [-0.01, 0.01]
    light = np.random.default_rng(0).integers(0, 255, (3, 300, 400)).astype(np.uint8)
    fits.PrimaryHDU(light, wcs.to_header()).writeto(tmp_path / "orion.fits")
    return tmp_path / "orion.fits"


class _Classifier:
    def classify(self, source):
        assert source.startswith(b"\x89PNG")
        return self

    def as_dict(self):
        shares = {"dark": 0.1, "emission": 0.9}
        return {"label": "emission", "probabilities": shares, "confident": True}


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """Answer "emission" to every crop."""
    import nebula_utils.classifier.classifier as module

    monkeypatch.setattr(module, "load_classifier", lambda *_, **__: _Classifier())
    return module


def test_frame_tells_people_where_catalogue_and_picture_disagree(picture, capsys):
    """One line a nebula, with its place in the picture and the verdict."""
    assert cli.main(["frame", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (orion,) = (line for line in lines if line.startswith("NGC 1976"))
    assert re.search(r"emission, x (199|200), y (149|150);", orion)
    assert "the picture agrees: emission 0.90" in orion
    assert any("reflection" in s and "the picture disagrees" in s for s in lines)


def test_frame_writes_what_is_asked_for(picture, capsys, tmp_path):
    """JSON on stdout; a VOTable and a drawn picture as files."""
    words = [
        "--json",
        "--votable",
        tmp_path / "a.xml",
        "--annotate",
        tmp_path / "a.png",
    ]
    assert cli.main(["frame", str(picture), *map(str, words)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["width"], record["height"]) == (400, 300)
    names = {one["name"]: one for one in record["nebulae"]}
    assert names["NGC 1976"]["agrees"] is True
    assert (tmp_path / "a.xml").stat().st_size > 1000
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.size == (400, 300)


def test_frame_without_a_place_is_status_2(tmp_path, capsys):
    """The message says how to get one, and nothing is on stdout."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "sky.png")
    assert cli.main(["frame", str(tmp_path / "sky.png")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "plate-solve" in captured.err


def test_frame_without_a_model_still_lists(picture, capsys, monkeypatch, model):
    """The catalogue's part needs no classifier."""

    def fail(*_, **__):
        raise ModelError("there is no classifier")

    monkeypatch.setattr(model, "load_classifier", fail)
    assert cli.main(["frame", str(picture)]) == 0
    captured = capsys.readouterr()
    assert "NGC 1976" in captured.out
    assert "agrees" not in captured.out
    assert "not classified: there is no classifier" in captured.err
