"""A picture that knows its place lists what is in it; one that doesn't says how to."""

import json

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from PIL import Image

from nebula_utils.catalogue import frame
from nebula_utils.catalogue.place import NoPlaceError, place_by_corners, read_corners
from nebula_utils.catalogue.table import find
from nebula_utils.config import DATA, cache_dir

pytestmark = pytest.mark.filterwarnings("ignore")

ORION = (83.82, -5.39)  # M 42


def make_wcs(shape=(300, 400), scale=0.01, turned=10.0):
    """Return the WCS of a picture of Orion; north is up, turned by some degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = ORION
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    cosine, sine = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    wcs.wcs.cd = scale * np.array([[-cosine, sine], [sine, cosine]])
    return wcs


def draw(wcs, shape=(300, 400), name="NGC 1980"):
    """Return a picture (rows from the bottom) with a spot on a nebula."""
    nebula = find(name)
    x, y = wcs.world_to_pixel(SkyCoord(nebula.ra_deg, nebula.dec_deg, unit="deg"))
    rows, columns = np.indices(shape)
    light = 30 + 220 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 30)
    return np.repeat(light[..., None], 3, 2).astype(np.uint8)


def find_spot(image):
    """Return column and row of the brightest pixel."""
    row, column = np.unravel_index(image.sum(2).argmax(), image.shape[:2])
    return column, row


def write_picture(folder, way):
    """Write the same sky in one of the ways that programs do; return its path."""
    wcs = make_wcs()
    data = draw(wcs)
    header = wcs.to_header()
    path = folder / "sky.png"
    if way == "fits":
        path = folder / "sky.fits"
        fits.PrimaryHDU(np.moveaxis(data, 2, 0), header).writeto(path)
        return path
    if way == "avm":
        from pyavm import AVM

        path = folder / "sky.jpg"
        Image.fromarray(data[::-1]).save(folder / "plain.jpg", quality=97)
        avm = AVM()
        avm.Spatial.CoordinateFrame, avm.Spatial.Equinox = "ICRS", "J2000"
        avm.Spatial.CoordsystemProjection = "TAN"
        avm.Spatial.ReferenceValue = ORION
        avm.Spatial.ReferencePixel = (200.5, 150.5)
        avm.Spatial.ReferenceDimension = (400, 300)
        avm.Spatial.Scale, avm.Spatial.Rotation = (-0.01, 0.01), -10.0
        avm.embed(str(folder / "plain.jpg"), str(path))
        return path
    Image.fromarray(data[::-1]).save(path)
    header["IMAGEW"], header["IMAGEH"] = 400, 300
    if way == "wcs from below":
        fits.PrimaryHDU(header=header).writeto(folder / "sky.wcs")
    elif way == "wcs from above":  # as astrometry.net counts the rows of a JPEG
        above = make_wcs()
        above.wcs.cd = above.wcs.cd @ np.diag([1, -1])
        fits.PrimaryHDU(header=above.to_header()).writeto(folder / "sky.wcs")
    elif way == "wcs as lines":
        (folder / "sky.wcs").write_text(header.tostring("\n"))
    elif way == "ini":
        lines = ["PLTSOLVD=T", "CRPIX1=200.5", "CRPIX2=150.5"]
        lines += [f"CRVAL{i + 1}={value}" for i, value in enumerate(ORION)]
        cd = wcs.wcs.cd
        lines += [f"CD{i + 1}_{j + 1}={cd[i, j]}" for i in (0, 1) for j in (0, 1)]
        (folder / "sky.ini").write_text("\n".join(lines))
    return path


WAYS = ("fits", "avm", "wcs from below", "wcs from above", "wcs as lines", "ini")


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_know_a_place_finds_the_nebula_where_it_is(tmp_path, way):
    """The nebula drawn at its place is listed at that pixel of the picture shown."""
    decoded, place, found = frame.read_frame(write_picture(tmp_path, way))
    by_name = {one.name: one for one in found}
    one = by_name["NGC 1980"]
    assert np.hypot(*np.subtract(find_spot(decoded.image), (one.x, one.y))) < 2
    assert one.share_inside == 1
    assert {"NGC 1976", "NGC 1982"} <= set(by_name)
    assert by_name["NGC 1976"].x == pytest.approx(199.5, abs=3)


def test_a_scaled_copy_beside_its_wcs(tmp_path):
    """Half as large as the picture that was solved: listed in its own pixels."""
    path = write_picture(tmp_path, "wcs from below")
    with Image.open(path) as picture:
        picture.resize((200, 150)).save(path)
    decoded, _, found = frame.read_frame(path)
    one = next(one for one in found if one.name == "NGC 1980")
    assert np.hypot(*np.subtract(find_spot(decoded.image), (one.x, one.y))) < 2


def test_without_a_place_it_says_how_to_get_one(tmp_path):
    """Neither WCS nor AVM nor a file beside it: the message names the ways."""
    path = write_picture(tmp_path, "none")
    with pytest.raises(NoPlaceError, match=r"sky\.wcs.*ASTAP.*nova.astrometry"):
        frame.read_frame(path)
    (tmp_path / "sky.wcs").write_bytes(b"\xff" * 200)
    (tmp_path / "sky.ini").write_text("CRVAL1=nonsense\nPLTSOLVD=F\n")
    with pytest.raises(NoPlaceError):
        frame.read_frame(path)


def test_crops_are_classified_and_compared(tmp_path):
    """Sure and different disagrees, unsure says nothing, tiny crops are not asked."""
    sizes = []

    def classify(crop):
        sizes.append(crop.shape)
        sure = len(sizes) % 2 == 1
        return {
            "label": "planetary",
            "probabilities": {"planetary": 0.8},
            "confident": sure,
        }

    decoded, _, found = frame.read_frame(write_picture(tmp_path, "fits"))
    found = frame.classify_crops(decoded.image, found, classify)
    asked = [one for one in found if one.answer]
    assert len(asked) == len(sizes)
    assert min(min(size[:2]) for size in sizes) >= frame.SMALLEST_CROP
    assert asked[0].agrees is False
    assert asked[1].agrees is None
    assert any(one.answer is None for one in found)


def test_outputs(tmp_path):
    """JSON, VOTable and the drawing hold what was found."""
    path = write_picture(tmp_path, "fits")
    decoded, place, found = frame.read_frame(path)
    record = json.loads(json.dumps(frame.as_dict(path, place, found)))
    assert record["arcsec_per_px"] == pytest.approx(36, abs=0.01)
    assert record["ra_deg"] == pytest.approx(ORION[0], abs=1e-4)
    assert record["nebulae"][0]["name"] == found[0].name
    frame.write_votable(tmp_path / "a.xml", found)
    table = Table.read(tmp_path / "a.xml")
    assert list(table["name"]) == [one.name for one in found]
    (tmp_path / "outlines.dat").write_text(
        "05.58 -05.3 start M 42\n05.60 -05.3 vertex\n05.60 -05.5 vertex\n"
        "05.58 -05.5 end\n"
    )
    outlines = frame.read_outlines(tmp_path / "outlines.dat")
    assert outlines["NGC 1976"][0][0] == pytest.approx([83.7, -5.3])
    for known in ({}, outlines):
        drawn = frame.annotate(decoded.image, place, found, known)
        assert drawn.shape == decoded.image.shape
        assert (drawn != decoded.image).any()
    frame.write_votable(tmp_path / "empty.xml", [])


# Parts of mosaics that lie outside the catalogue's circle around the whole nebula, and
# a texture that stands under the number beside its own.
PARTS = {f"{name}.png" for name in ("n2736", "ic2118-2", "rho-a00", "rho-a10")}
PARTS |= {"rho-a11.png", "rho-a01.png", "lbn438.png"}


def list_textures():
    """Yield name, corners and row of the default textures of nebulae."""
    file = next(cache_dir().glob("stellarium/**/textures.json"), None)
    if file is None:
        return
    rows = pd.read_csv(DATA / "stellarium.csv", dtype=str).set_index("file")
    for name, corners in read_corners(file).items():
        if name in rows.index and rows["class"][name] != "other":
            yield name, corners, rows.loc[name]


def test_each_texture_finds_its_own_nebula():
    """By its sky corners, each default texture of a nebula lists that nebula."""
    textures = list(list_textures())
    if not textures:
        pytest.skip("needs Stellarium's textures: run `nebula fetch`")
    missing, unknown = {}, []
    for name, corners, row in textures:
        nebula = find(row.nebula)
        if nebula is None:
            unknown.append((name, row.nebula))
            continue
        place = place_by_corners(corners, (512, 512))
        names = [one.name for one in frame.list_nebulae(place)]
        if nebula.name not in names:
            missing[name] = (nebula.name, names[:5])
    assert len(textures) > 150
    assert len(unknown) < 10, unknown
    assert set(missing) <= PARTS, missing
