"""Class folders and manifests of one's own pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nebula_utils.config import CLASS_NAMES
from nebula_utils.dataset import photos, stellarium
from nebula_utils.dataset.manifest import COLUMNS, check_manifest
from nebula_utils.errors import CatalogueError, SourceError


@pytest.fixture
def folder(tmp_path):
    """Return an empty folder and a function that adds small pictures to it."""

    def add(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(path)
        return tmp_path

    return add


def write_manifest(folder, text):
    """Write manifest.csv as a spreadsheet would, with a byte order mark."""
    (folder / "manifest.csv").write_text(text, encoding="utf-8-sig")


def test_class_folders_become_a_manifest(folder):
    """The original's layout: class from the folder, nebula from the file name."""
    place = folder("dark/barnard_150-10.jpg", "Emission Nebulae/ngc1499-3.PNG")
    (place / "dark" / "notes.txt").write_text("no picture")
    table = photos.load_photos(place)
    assert list(table.columns) == list(COLUMNS)
    assert table["image_id"].tolist() == [
        "photos/Emission Nebulae/ngc1499-3",
        "photos/dark/barnard_150-10",
    ]
    assert table["nebula"].tolist() == ["NGC 1499", "B 150"]
    assert table["label"].tolist() == ["emission", "dark"]
    assert table["accept"].tolist() == ["emission", "dark"]
    assert (table["source"] == "photos").all()
    assert table["path"].tolist()[1] == str(place / "dark" / "barnard_150-10.jpg")
    assert (table["flag"] == "").all()


def test_synthetic_catalogue_loads(synthetic_folder):
    """Seven class folders of eight pictures are listed under seven labels."""
    table = photos.load_photos(synthetic_folder)
    assert table.groupby("label").size().to_dict() == dict.fromkeys(CLASS_NAMES, 8)
    assert table["image_id"].is_unique
    assert table["image_id"].str.startswith("photos/").all()
    assert table["nebula"].nunique() == 28


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dark", ("dark", "")),
        ("Dark nebulae", ("dark", "")),
        ("HII", ("emission", "")),
        ("H II regions", ("emission", "")),
        ("SNR", ("supernova_remnant", "")),
        ("supernova remnants", ("supernova_remnant", "")),
        ("planetary_nebula", ("planetary", "")),
        ("PN", ("planetary", "")),
        ("Proto-planetary", ("protoplanetary", "")),
        ("galaxies", ("other", "galaxy")),
        ("star fields", ("other", "star_field")),
        ("other", ("other", "everyday")),
        ("holiday", None),
    ],
)
def test_class_names_are_tolerant(name, expected):
    """Folders may be named as people name them."""
    assert photos.match_class(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("barnard_150-10", "B 150"),
        ("barnard-147", "B 147"),
        ("sh2-155", "Sh2-155"),
        ("sh2-155-cave-3", "Sh2-155"),
        ("cone-ngc2264__04", "NGC 2264"),
        ("n7635", "NGC 7635"),
        ("ldn43", "LDN 43"),
        ("My own nebula (3)", "My own nebula"),
        ("unheard_of-12", "unheard of"),
        ("ngc6589-90", "NGC 6589"),
        ("SNR B0509-67.5", "SNR B0509-67.5"),
        ("DEM L 316A", "DEM L 316A"),
    ],
)
def test_nebula_is_read_from_a_name(name, expected):
    """Running numbers are dropped, catalogue numbers are not."""
    assert photos.guess_nebula(name) == expected
    assert photos.guess_nebula(expected, counted=False) == expected


def test_name_that_the_catalogue_has_not_is_kept_as_it_stands(folder):
    """A table of ours gives names, not guesses: part of one is another object."""
    names = ["star field near M 2-9", "SNR B0509-67.5", "Hubble V in NGC 6822", "M 42"]
    rows = [{"file": f"other/{i}.png", "nebula": name} for i, name in enumerate(names)]
    table = photos.make_manifest(rows, folder(), "ours")
    assert table["nebula"].tolist() == [*names[:3], "NGC 1976"]


def test_catalogue_names_win(monkeypatch, folder):
    """A common name is looked up, and brings its place on the sky."""

    class Nebula:
        name, ra_deg, dec_deg, size_arcmin = "Sh2-155", 344.2, 62.6, 50.0

    def find(name):
        return Nebula if name.lower() in ("cave nebula", "sh2-155") else None

    monkeypatch.setattr(photos, "find", find)
    table = photos.load_photos(folder("emission/cave_nebula-3.png", "dark/x_y-1.png"))
    row = table[table["label"] == "emission"].iloc[0]
    assert row["nebula"] == "Sh2-155"
    assert (row["ra_deg"], row["dec_deg"], row["size_arcmin"]) == (344.2, 62.6, 50.0)
    assert np.isnan(table[table["label"] == "dark"].iloc[0]["ra_deg"])


def test_damaged_catalogue_is_no_silence(monkeypatch, folder):
    """Names and places that vanish would let nebulae leak: it fails instead."""

    def fail(name):
        raise CatalogueError("damaged")

    monkeypatch.setattr(photos, "find", fail)
    with pytest.raises(CatalogueError):
        photos.load_photos(folder("dark/barnard_150-1.png"))


def test_manifest_decides_what_is_listed(folder, caplog):
    """Rows give class, nebula, flag and accepted classes; missing files are logged."""
    place = folder("dark/a.png", "dark/b.png", "emission/c.png")
    write_manifest(
        place,
        "file,class,nebula,flag,accept,licence\n"
        "dark/a.png,dark,barnard-150,,emission|dark,CC0\n"
        "emission/c.png,,,infrared,,\n"
        "dark/gone.png,dark,x\n",
    )
    table = photos.load_photos(place)
    assert table["image_id"].tolist() == ["photos/dark/a", "photos/emission/c"]
    assert table["nebula"].tolist() == ["B 150", "c"]
    assert table["accept"].tolist() == ["dark|emission", "emission"]
    assert table["flag"].tolist() == ["", "infrared"]
    assert table["licence"].tolist() == ["CC0", ""]
    assert "dark/gone.png is in the manifest but not there" in caplog.text


@pytest.mark.parametrize(
    "file", ["../secret.png", "/etc/passwd", "dark/../../x.png", "C:\\x.png", ""]
)
def test_files_outside_the_folder_are_refused(folder, file):
    """A manifest can't reach out of its folder."""
    place = folder("dark/a.png")
    write_manifest(place, f'file,class\n"{file}",dark\n')
    with pytest.raises(SourceError, match=r"line 2: .* is no file inside the folder"):
        photos.load_photos(place)


def test_bad_manifests_are_refused(folder):
    """An unknown class, a missing column and garbage are named."""
    place = folder("dark/a.png")
    write_manifest(place, "file,class\ndark/a.png,holiday\n")
    with pytest.raises(SourceError, match="line 2: 'holiday' is no class"):
        photos.load_photos(place)
    write_manifest(place, "name\na\n")
    with pytest.raises(SourceError, match="no column 'file'"):
        photos.load_photos(place)
    write_manifest(place, "file,class,ra_deg\ndark/a.png,dark,05h34m\n")
    with pytest.raises(SourceError, match="'05h34m' in column ra_deg is no number"):
        photos.load_photos(place)
    (place / "manifest.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(SourceError, match="can't be read"):
        photos.load_photos(place)


def test_missing_and_empty_folders_are_refused(folder, tmp_path):
    """No folder, no class folder, or a class folder without a picture."""
    with pytest.raises(SourceError, match="no folder"):
        photos.load_photos(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="holds no picture"):
        photos.load_photos(tmp_path)
    folder("holiday/beach.png")
    with pytest.raises(SourceError, match="holds no picture"):
        photos.load_photos(tmp_path)
    folder("dark/a.png")
    (tmp_path / "emission").mkdir()
    with pytest.raises(SourceError, match="emission holds no picture"):
        photos.load_photos(tmp_path)


def test_places_and_kinds_of_a_manifest_are_kept(folder):
    """A row's own place wins; the kind of other may stand in a note."""
    place = folder("other/m31.png", "reflection/v838.png")
    write_manifest(
        place,
        "file,nebula,ra_deg,dec_deg,note\n"
        "other/m31.png,m31,0,41.3,kind=globular\n"
        "reflection/v838.png,V838 Mon,106.02,-3.85,\n",
    )
    table = photos.load_photos(place)
    check_manifest(table)
    assert table["other_kind"].tolist() == ["cluster", ""]
    assert table["ra_deg"].tolist() == [0.0, 106.02]
    assert table["nebula"].tolist() == ["M 31", "V838 Mon"]
    assert table["size_arcmin"].isna().all()


def test_names_that_differ_in_the_suffix_only_stay_apart(folder):
    """a.png and a.gif keep their suffix in the id."""
    table = photos.load_photos(folder("dark/a.png", "dark/a.gif"))
    assert table["image_id"].tolist() == ["photos/dark/a.gif", "photos/dark/a.png"]


def test_outside_folders_load(shared):
    """The web photos and the newer textures come with all rows and classes."""
    table = photos.load_photos(shared / "photos")
    assert table["label"].value_counts().to_dict() == {"emission": 349, "dark": 77}
    assert (table["flag"] != "").sum() == 29
    newer = photos.load_photos(shared / "stellarium-26.3")
    assert len(newer) == 66
    assert newer["label"].nunique() == 6
    assert (newer["accept"] == "emission|reflection").sum() == 3
    strangers = photos.load_photos(shared / "strangers")
    check_manifest(strangers)
    assert len(strangers) == 402 and strangers["label"].nunique() == 7
    kinds = strangers["other_kind"].value_counts().to_dict()
    assert kinds == {"": 258, "galaxy": 94, "cluster": 44, "star_field": 6}
    assert (strangers["credit"] != "").all()
    unplaced = strangers[strangers["ra_deg"].isna() & (strangers["label"] != "other")]
    assert unplaced["nebula"].nunique() < 10


def test_everyday_photos_are_of_this_machine(monkeypatch, tmp_path):
    """Bundled photos alone, where Stellarium has no landscapes; one place, one name."""
    monkeypatch.setattr(
        stellarium, "fetch_textures", lambda: tmp_path / "nebulae/default"
    )
    table = photos.load_everyday()
    check_manifest(table)
    assert set(table["other_kind"]) == {"everyday"} and len(table) == 19
    assert "everyday/skimage/chelsea" in set(table["image_id"])
    landscapes = tmp_path / "landscapes/ocean"
    landscapes.mkdir(parents=True)
    for name in ("ocean1", "ocean5"):
        Image.fromarray(np.full((9, 9, 3), 90, np.uint8)).save(
            landscapes / f"{name}.png"
        )
    more = photos.load_everyday().tail(2)
    assert set(more["nebula"]) == {"everyday: ocean"}
    assert set(more["image_id"]) == {f"everyday/stellarium/ocean{n}" for n in (1, 5)}


@pytest.mark.slow
def test_everyday_photos_are_all_there(textures):
    """Each photo of data/everyday.csv is on a machine that has the textures."""
    assert len(photos.load_everyday()) == len(photos.read_rows(photos.EVERYDAY)) == 38


def test_class_folders_list_astronomers_files_too(tmp_path: Path) -> None:
    """What a single path may be, a file in a folder may be: XISF, packed FITS."""
    (tmp_path / "dark").mkdir()
    for name in ("a-1.xisf", "b-1.fits.gz", "c-1.FITS.FZ", "notes.gz"):
        (tmp_path / "dark" / name).write_bytes(b"")
    found = photos.load_photos(tmp_path)["path"].map(lambda path: Path(path).name)
    assert list(found) == ["a-1.xisf", "b-1.fits.gz", "c-1.FITS.FZ"]
    (tmp_path / "dark" / "ngc1499-3.FIT.gz").write_bytes(b"")
    assert "NGC 1499" in set(photos.load_photos(tmp_path)["nebula"])
