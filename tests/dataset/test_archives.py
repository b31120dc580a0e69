"""The source archives, against a local server that has the archives' addresses."""

import csv
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nebula_utils import config
from nebula_utils.catalogue.table import find
from nebula_utils.dataset import download
from nebula_utils.dataset.manifest import check_manifest, load_dataset, load_source
from nebula_utils.errors import SourceError
from nebula_utils.images.reading import resize_image

IDS = ("potw1", "potw2", "heic3")


def draw(seed: int, side: int = 200) -> Image.Image:
    """Draw coarse structure, as photographs have and hashes see."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (12, 12, 3), np.uint8)
    return Image.fromarray(resize_image(coarse, side, side))


@pytest.fixture
def server(tmp_path, tmp_cache, monkeypatch):
    """Serve the files of a folder, after as many HTTP 503 as each name is owed."""
    folder = tmp_path / "site"
    folder.mkdir()
    asked: Counter[str] = Counter()
    owed: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            asked[name] += 1
            file = folder / name
            status = 503 if owed[name] else 200 if file.is_file() else 404
            owed[name] -= status == 503
            self.send_response(status)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Retry-After", "0")
            self.end_headers()
            if status == 200:
                self.wfile.write(file.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("NEBULA_MIRROR", raising=False)
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(download, "ARCHIVES", tmp_path / "archives.csv")
    url = f"http://127.0.0.1:{http.server_port}/screen/"
    write_table(tmp_path / "archives.csv", url)
    for seed, name in enumerate(IDS):
        draw(seed).save(folder / f"{name}.jpg", quality=90)
    http.folder, http.asked, http.owed = folder, asked, owed
    yield http
    http.shutdown()
    http.server_close()


def write_table(path, url):
    """List three pictures, one with a place of its own."""
    names = {"potw1": "NGC 2440", "potw2": "LH 95", "heic3": "Egg Nebula"}
    classes = {"potw1": "planetary", "potw2": "emission", "heic3": "protoplanetary"}
    rows = [
        {
            "id": name,
            "archive": "esahubble",
            "class": classes[name],
            "accept": classes[name],
            "nebula": names[name],
            "ra_deg": "84.27" if name == "potw2" else "",
            "dec_deg": "-66.37" if name == "potw2" else "",
            "credit": "ESA/Hubble & NASA",
            "licence": "CC BY 4.0",
            "address": f"{url}{name}.jpg",
            "phash": str(imagehash.phash(draw(seed), hash_size=16)),
        }
        for seed, name in enumerate(IDS)
    ]
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_pictures_come_from_their_addresses_once(server, tmp_cache):
    """Fetched once, kept as they came, with credit, licence and place."""
    table = load_source("archives")
    assert table["image_id"].tolist() == [f"archives/esahubble/{name}" for name in IDS]
    assert table["nebula"].tolist() == ["NGC 2440", "LH 95", "Egg Nebula"]
    assert table.loc[1, ["ra_deg", "dec_deg"]].tolist() == [84.27, -66.37]
    assert table.loc[0, "ra_deg"] == pytest.approx(find("NGC 2440").ra_deg)
    assert set(table["credit"] + table["licence"]) == {"ESA/Hubble & NASACC BY 4.0"}
    kept = tmp_cache / "archives/esahubble/potw1.jpg"
    assert kept.read_bytes() == (server.folder / "potw1.jpg").read_bytes()
    assert download.fetch_archives() == {} and set(server.asked.values()) == {1}


def test_mirror_is_looked_at_before_the_network(server, tmp_path, monkeypatch):
    """A copy there is used, re-encoded or not, and nothing is asked for."""
    place = tmp_path / "mirror/archives/esahubble"
    place.mkdir(parents=True)
    monkeypatch.setenv("NEBULA_MIRROR", str(tmp_path / "mirror"))
    draw(0).resize((120, 120)).save(place / "potw1.jpg", quality=60)
    draw(7).save(place / "potw2.jpg")  # another picture under this name
    assert download.fetch_archives() == {}
    assert server.asked == {"potw2.jpg": 1, "heic3.jpg": 1}


def test_another_picture_is_refused(server, caplog):
    """What the address has now is not what was labelled: left out, and said."""
    draw(9).save(server.folder / "potw2.jpg")
    failures = download.fetch_archives()
    assert list(failures) == ["esahubble/potw2.jpg"]
    assert "it is another picture" in failures["esahubble/potw2.jpg"]
    assert download.load_archives()["nebula"].tolist() == ["NGC 2440", "Egg Nebula"]
    assert "1 of 3 pictures of the archives are missing" in caplog.text


def test_passing_trouble_is_waited_for(server):
    """Two refusals for now are followed by success; a missing file is not repeated."""
    server.owed["potw1.jpg"] = 2
    (server.folder / "heic3.jpg").unlink()
    failures = download.fetch_archives()
    assert list(failures) == ["esahubble/heic3.jpg"]
    assert "HTTP 404" in failures["esahubble/heic3.jpg"]
    assert server.asked["potw1.jpg"] == 3 and server.asked["heic3.jpg"] == 1


def test_interrupted_fetch_goes_on(server, tmp_cache):
    """Only what is not there is asked for; half a file is never taken for one."""
    (server.folder / "potw1.jpg").rename(server.folder / "away.jpg")
    whole = (server.folder / "potw2.jpg").read_bytes()
    (server.folder / "potw2.jpg").write_bytes(whole[: len(whole) // 2])
    assert len(download.fetch_archives()) == 2
    assert len(list((tmp_cache / "archives").rglob("*.jpg"))) == 1
    (server.folder / "away.jpg").rename(server.folder / "potw1.jpg")
    (server.folder / "potw2.jpg").write_bytes(whole)
    assert download.fetch_archives() == {}
    assert server.asked["heic3.jpg"] == 1


def test_without_network_and_mirror_it_says_so(server, tmp_path):
    """No traceback: which source, and what to do."""
    write_table(download.ARCHIVES, "http://127.0.0.1:9/")
    with pytest.raises(SourceError, match="can't reach"):
        download.load_archives()


@pytest.fixture(scope="module")
def table():
    """Read the committed table."""
    return pd.read_csv(config.DATA / "archives.csv", dtype=str, keep_default_na=False)


def test_committed_table_is_sound(table):
    """Every picture has credit, free licence, address, hash and a known class."""
    assert not table["id"].duplicated().any()
    assert not table["phash"].duplicated().any()
    assert table["phash"].str.fullmatch("[0-9a-f]{64}").all()
    assert table["address"].str.startswith("https://").all()
    assert (table["credit"] != "").all()
    assert set(table["licence"]) <= {
        "CC BY 4.0",
        "public domain (NASA media guidelines)",
    }
    assert table["class"].isin(config.CLASS_NAMES).all()
    accepted = table["accept"].str.split("|")
    assert (accepted.str[0] == table["class"]).all()
    others = (table["class"] == config.OTHER).sum()
    assert others < len(table) / 2


def test_six_types_have_enough_nebulae(table):
    """Protoplanetary nebulae are what this source is for."""
    counts = table.groupby("class")["nebula"].nunique()
    assert counts["protoplanetary"] >= config.MIN_NEBULAE
    named = table[(table["class"] != config.OTHER) & (table["ra_deg"] == "")]
    unknown = {name for name in named["nebula"] if find(name) is None}
    assert unknown == {"ESO 456-67"}


@pytest.mark.slow
def test_mirror_beside_the_repository_has_them_all(
    shared, table, tmp_cache, monkeypatch
):
    """The committed hashes fit the pictures, with no network at all."""
    monkeypatch.setenv("NEBULA_MIRROR", str(shared))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    manifest = download.load_archives()
    check_manifest(manifest)
    assert len(manifest) == 247
    for found, listed in zip(manifest["nebula"], table["nebula"], strict=True):
        known = find(listed)
        assert found == (known.name if known else listed)


@pytest.mark.slow
def test_larger_study_has_all_six_types(shared, textures, monkeypatch):
    """With the archives protoplanetary nebulae are enough to be studied."""
    monkeypatch.setenv("NEBULA_MIRROR", str(shared))
    dataset = load_dataset("stellarium+everyday+archives")
    assert dataset.class_names == config.CLASS_NAMES and not dataset.left_out
    counts = dataset.describe()["classes"]["protoplanetary"]
    assert counts["nebulae"] >= 10 and counts["images"] >= 15
    assert (dataset.manifest[["credit", "licence"]] != "").all(axis=None)
