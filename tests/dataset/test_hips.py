"""Tests of the source hips against a local server that speaks hips2fits."""

import argparse
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hips_server import HipsServer, make_picture

from nebula_utils.config import NEBULA_TYPES
from nebula_utils.dataset import hips, hips_plan, hips_store
from nebula_utils.dataset.hips_client import HipsClient, Patience, parse_retry_after
from nebula_utils.dataset.hips_fetch import estimate_download, fetch_cutouts
from nebula_utils.errors import CacheError, SourceError

PATIENCE = Patience(tries=3, pause=0.01, read=0.5, whole_answer=0.6, connect=2)
SURVEYS = ["DSS2-color", "DSS2-red"]


def make_catalogue(n_nebulae: int) -> pd.DataFrame:
    """Return nebulae of all types, spread over the sky by a fixed seed."""
    draws = np.random.default_rng(5).uniform(size=(n_nebulae, 3))
    return pd.DataFrame(
        {
            "name": [f"Sh2-{number + 1}" for number in range(n_nebulae)],
            "type": [NEBULA_TYPES[i % len(NEBULA_TYPES)] for i in range(n_nebulae)],
            "ra_deg": draws[:, 0] * 360,
            "dec_deg": draws[:, 1] * 160 - 80,
            "size_arcmin": 1 + draws[:, 2] * 59,
            "constellation": ["Ori", "Cyg"] * (n_nebulae // 2)
            + ["Ori"] * (n_nebulae % 2),
        }
    )


def make_plan(n_nebulae: int, **options: object) -> list:
    """Plan small cutouts of some nebulae in DSS colour and red."""
    defaults = {"surveys": SURVEYS, "size_px": 64, "star_fields": 0, "other": 0}
    return hips.make_plan(make_catalogue(n_nebulae), **(defaults | options))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    """Serve hips2fits locally."""
    with HipsServer() as running:
        yield running


def fetch(server, folder, cutouts, connections=4, patience=PATIENCE):
    """Fetch from the local server without long pauses."""
    client = HipsClient(server.url, patience)
    return fetch_cutouts(cutouts, folder, client, connections)


def read_manifest(folder: Path) -> list[dict]:
    """Return every record, in the order of writing."""
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_pictures_and_records_are_written(server, tmp_path):
    """A fetch keeps the service's bytes and records where they are from."""
    cutouts = make_plan(6)
    counts = fetch(server, tmp_path, cutouts)
    assert counts == {"ok": 12, "requested": 12}
    records = read_manifest(tmp_path)
    assert len(records) == 12
    for record in records:
        assert hips_store.compute_sha256(tmp_path / record["file"]) == record["sha256"]
        assert record["width"] == record["height"] == 64
        assert "Digitized Sky Survey" in record["credit"] and record["licence"]
        assert record["date"].endswith("+00:00")
    assert all("nebula-utils" in agent for agent in server.agents)


def test_field_of_view_is_two_and_a_half_sizes():
    """A nebula of 20' is asked for in a field of 50', grey bands with a stretch."""
    catalogue = make_catalogue(1).assign(size_arcmin=20.0)
    colour, red = hips.make_plan(catalogue, SURVEYS)
    assert float(colour.params["fov"]) == pytest.approx(50 / 60, abs=1e-6)
    assert colour.params["hips"] == "CDS/P/DSS2/color"
    assert "stretch" not in colour.params and red.params["cmap"] == "Greys_r"


def test_every_nebula_is_planned_in_every_survey():
    """Each type has the same share of colour and of grey cutouts."""
    plan = make_plan(24, surveys=hips.DEFAULT_SURVEYS)
    table = pd.crosstab(
        [cutout.target.label for cutout in plan],
        [cutout.survey.slug for cutout in plan],
    )
    assert table.shape == (6, 7)
    assert (table == 4).all(axis=None)


def test_plan_is_counted_where_the_surveys_have_pixels():
    """All types stand in all surveys alike; PanSTARRS lacks the southern ones."""
    north = make_catalogue(12).assign(dec_deg=40.0)
    surveys = ["PanSTARRS-g", "DSS2-color"]
    table = hips_plan.tabulate_plan(hips.make_plan(north, surveys, star_fields=0))
    assert list(table.columns) == ["DSS2-color", "PanSTARRS-g"]
    assert (table.loc[list(NEBULA_TYPES)] == 2).all(axis=None)
    south = north.assign(dec_deg=-60.0)
    south = hips_plan.tabulate_plan(hips.make_plan(south, surveys, star_fields=0))
    assert south.loc["dark"].get("PanSTARRS-g", 0) == 0


def test_second_run_asks_for_nothing(server, tmp_path):
    """What is there is not asked for again, empty tiles included."""
    server.behave = lambda query, before: (
        "white" if query["hips"][-1] == "d" else "picture"
    )
    fetch(server, tmp_path, make_plan(5))
    counts = fetch(server, tmp_path, make_plan(5))
    assert server.total == 10
    assert counts == {"ok": 5, "off_survey": 5, "requested": 0}


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [("flat", "blank"), ("white", "off_survey"), ("half_white", "off_survey")],
)
def test_empty_tiles_are_recognised(server, tmp_path, behaviour, status):
    """A tile without sky is recorded as such and not kept."""
    server.behave = lambda query, before: behaviour
    counts = fetch(server, tmp_path, make_plan(1))
    assert counts[status] == 2
    assert not list(tmp_path.glob("*/*.jpg"))
    assert all(record["reason"] for record in read_manifest(tmp_path))


def test_dark_sky_is_not_taken_for_an_empty_tile():
    """A very dark field with a few stars is usable."""
    rng = np.random.default_rng(0)
    image = rng.normal(6, 2, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    image[rng.integers(0, 64, 60), rng.integers(0, 64, 60)] = 230
    assert hips_store.classify_tile(image) == ("ok", "")


@pytest.mark.parametrize(
    "behaviour",
    ["error", "bad_gateway", "html", "cut", "cut_silently", "nothing", "garbage"]
    + ["slow", "trickle"],
)
def test_passing_trouble_is_asked_again(server, tmp_path, behaviour):
    """One failed answer of any kind is followed by another attempt, and succeeds."""
    server.behave = lambda query, before: "picture" if before else behaviour
    counts = fetch(server, tmp_path, make_plan(1))
    assert counts["ok"] == 2
    assert set(server.requests.values()) == {2}


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("bad_gateway", "HTTP 502 (3 attempts)"),
        ("html", "text/html instead of a picture"),
        ("cut", "cut off"),
        ("cut_silently", "damaged"),
        ("garbage", "damaged"),
        ("slow", "no answer in time"),
        ("trickle", "too slowly"),
    ],
)
def test_lasting_trouble_is_recorded(server, tmp_path, behaviour, words):
    """After the last attempt the reason stands in the record, and nothing is kept."""
    server.behave = lambda query, before: behaviour
    counts = fetch(server, tmp_path, make_plan(1, surveys=["DSS2-color"]))
    assert counts == {"failed": 1, "requested": 1}
    assert words in read_manifest(tmp_path)[0]["reason"]
    assert server.total == 3
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("bad_request", "HTTP 400 (Bad Request: Something is wrong)"),
        ("wrong_size", "32 × 32 px instead of 64 × 64"),
        ("huge", "larger than"),
    ],
)
def test_refusals_are_not_asked_again(server, tmp_path, behaviour, words):
    """What can't get better is asked for once, with the service's own words."""
    server.behave = lambda query, before: behaviour
    patience = Patience(tries=3, pause=0.01)
    fetch(server, tmp_path, make_plan(1, surveys=["DSS2-red"]), patience=patience)
    assert words in read_manifest(tmp_path)[0]["reason"]
    assert server.total == 1


def test_failed_cutouts_are_tried_in_the_next_run(server, tmp_path):
    """A failure is not final, unlike an empty tile."""
    server.behave = lambda query, before: "error"
    fetch(server, tmp_path, make_plan(1))
    server.behave = lambda query, before: "picture"
    assert fetch(server, tmp_path, make_plan(1)) == {"ok": 2, "requested": 2}


@pytest.mark.parametrize("behaviour", ["too_many", "too_many_date"])
def test_retry_after_holds_for_all_threads(server, tmp_path, behaviour):
    """After 429 nobody asks before the time that the service named is over."""
    first = threading.Event()

    def behave(query, before):
        if first.is_set():
            return "picture"
        first.set()
        return behaviour

    server.behave, server.delay = behave, 0.1
    counts = fetch(server, tmp_path, make_plan(8), connections=3)
    assert counts["ok"] == 16
    gaps = np.diff(server.times)
    assert gaps.max() > 0.8
    assert np.argmax(gaps) <= 3 + 2  # only what was under way came in between


def test_long_retry_after_ends_the_run(server, tmp_path):
    """Nobody sits in front of a terminal for an hour: the message names the time."""
    server.behave, server.retry_after = lambda query, before: "too_many", "3600"
    with pytest.raises(SourceError, match="60 minutes"):
        fetch(server, tmp_path, make_plan(2), connections=1)
    assert server.total == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), (None, None), ("soon", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0)],
)
def test_retry_after_is_read(value, seconds):
    """Seconds, dates and nonsense are all understood."""
    assert parse_retry_after(value) == seconds


def test_service_in_trouble_ends_the_run(server, tmp_path):
    """A service that only fails is not asked thousands of times."""
    server.behave = lambda query, before: "bad_request"
    with pytest.raises(SourceError, match="20 cutouts failed one after the other"):
        fetch(server, tmp_path, make_plan(60))
    assert server.total < 20 + 4


def test_no_network_says_what_to_do(tmp_path):
    """Without a network one clear error comes, within seconds."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    client = HipsClient(f"http://127.0.0.1:{port}/hips2fits", PATIENCE)
    start = time.monotonic()
    with pytest.raises(SourceError, match="can't reach .*Check the network"):
        fetch_cutouts(make_plan(20), tmp_path, client)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("address", ["hips2fits", "ftp://127.0.0.1/", "http://"])
def test_wrong_address_is_an_error(tmp_path, address):
    """A mistyped --server is named as such, not taken for a network problem."""
    with pytest.raises(SourceError, match="no usable address"):
        fetch_cutouts(make_plan(1), tmp_path, HipsClient(address, PATIENCE))


def test_client_can_be_used_again(server, tmp_path):
    """One client serves several fetches."""
    client = HipsClient(server.url, PATIENCE)
    fetch_cutouts(make_plan(2), tmp_path, client)
    assert fetch_cutouts(make_plan(4), tmp_path, client)["requested"] == 4


def test_connections_are_limited(server, tmp_path):
    """No more requests are under way than was said."""
    server.delay = 0.02
    fetch(server, tmp_path, make_plan(12), connections=2)
    assert server.busiest == 2


@pytest.mark.parametrize("damage", ["remove", "change"])
def test_lost_or_changed_file_is_fetched_again(server, tmp_path, damage):
    """A record is believed only if the file is there with its hash."""
    cutouts = make_plan(3)
    fetch(server, tmp_path, cutouts)
    victim = tmp_path / cutouts[2].file
    before = victim.read_bytes()
    victim.unlink() if damage == "remove" else victim.write_bytes(before[:-9])
    assert fetch(server, tmp_path, cutouts)["requested"] == 1
    assert victim.read_bytes() == before


def test_half_a_record_is_repaired(server, tmp_path):
    """A manifest that ends in half a line loses that line only, and asks nothing."""
    cutouts = make_plan(4)
    fetch(server, tmp_path, cutouts)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-25])
    (tmp_path / "DSS2-red" / ".left.over.jpg").write_bytes(b"half")
    counts = fetch(server, tmp_path, cutouts)
    assert counts == {"ok": 8, "requested": 0}  # the picture itself tells its query
    assert len(read_manifest(tmp_path)) == 8
    assert not list(tmp_path.glob("*/.*"))


def test_other_size_is_another_picture(server, tmp_path):
    """Pictures of one size are not taken for those of another, and both stay."""
    fetch(server, tmp_path, make_plan(2))
    assert fetch(server, tmp_path, make_plan(2, size_px=96))["requested"] == 4
    assert fetch(server, tmp_path, make_plan(2))["requested"] == 0
    assert len(hips.load_hips(tmp_path)) == 4


def test_corrected_label_needs_no_request(server, tmp_path):
    """A type that was corrected in the catalogue reaches the manifest."""
    catalogue = make_catalogue(1)
    fetch(server, tmp_path, hips.make_plan(catalogue, SURVEYS, 64))
    catalogue["type"] = "reflection"
    counts = fetch(server, tmp_path, hips.make_plan(catalogue, SURVEYS, 64))
    assert counts["requested"] == 0
    assert set(hips.load_hips(tmp_path)["label"]) == {"reflection"}


def test_second_run_in_one_folder_is_told(server, tmp_path):
    """Two runs at once don't disturb each other: the second one says who is there."""
    with (
        hips_store.lock_folder(tmp_path),
        pytest.raises(SourceError, match=f"process {os.getpid()}"),
    ):
        fetch(server, tmp_path, make_plan(1))
    assert server.total == 0
    assert fetch(server, tmp_path, make_plan(1))["ok"] == 2


def test_full_disk_is_named(server, tmp_path, monkeypatch):
    """A full disk ends the run at once with a plain message and no half picture."""
    written = Path.write_bytes
    calls = []

    def fill_up(path, data):
        calls.append(path)
        if len(calls) > 3:
            written(path, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(CacheError, match="disk is full"):
        fetch(server, tmp_path, make_plan(20))
    monkeypatch.undo()
    assert len(list(tmp_path.glob("*/*.jpg"))) == 3
    assert fetch(server, tmp_path, make_plan(20))["requested"] == 37


def test_outside_the_footprint_nothing_is_asked(server, tmp_path):
    """PanSTARRS ends at -30°: farther south the record says so without a request."""
    catalogue = make_catalogue(1).assign(dec_deg=-45.0)
    plan = hips.make_plan(catalogue, ["PanSTARRS-g", "DSS2-red"], 64)
    assert fetch(server, tmp_path, plan) == {"ok": 1, "off_survey": 1, "requested": 1}
    assert "south of -30°" in read_manifest(tmp_path)[0]["reason"]


def test_selection_conditions_hold():
    """Types, sizes, constellations and the limit choose as they say."""
    catalogue = make_catalogue(60)
    plan = make_plan(60, types=["dark"], min_size=20, constellation=["ori"])
    chosen = catalogue[catalogue["name"].isin({cutout.target.name for cutout in plan})]
    assert set(chosen["type"]) == {"dark"} and chosen["size_arcmin"].min() >= 20
    limited = make_plan(60, limit=6, surveys=["DSS2-red"])
    assert {cutout.target.label for cutout in limited} == set(NEBULA_TYPES)


@pytest.mark.parametrize(
    "wrong", [{"types": ["galaxy"]}, {"names": ["NGC 0"]}, {"min_size": 1e6}]
)
def test_wrong_selection_is_an_error(wrong):
    """Unknown names and empty selections say what is wrong."""
    with pytest.raises(SourceError, match="unknown|no nebula fits"):
        make_plan(6, **wrong)


def test_unknown_survey_is_an_error():
    """A survey whose licence is unknown is refused, with the list of the known."""
    with pytest.raises(SourceError, match="DSS2-color"):
        make_plan(1, surveys=["CDS/P/Unheard/of"])


def test_star_fields_keep_clear_of_nebulae_at_their_latitudes():
    """Star fields avoid every nebula, share latitudes, and don't depend on how many."""
    from astropy.coordinates import SkyCoord

    catalogue = make_catalogue(80)
    fields = [
        cutout.target
        for cutout in make_plan(80, star_fields=30, surveys=["DSS2-red"])
        if cutout.target.other_kind == "star_field"
    ]
    nebulae = SkyCoord(catalogue["ra_deg"], catalogue["dec_deg"], unit="deg")
    for field in fields:
        place = SkyCoord(field.ra_deg, field.dec_deg, unit="deg")
        away = place.separation(nebulae).deg * 60
        assert (away > catalogue["size_arcmin"] / 2 + field.fov_arcmin * 0.7).all()
        latitudes = np.abs(nebulae.galactic.b.deg - place.galactic.b.deg)
        assert latitudes.min() < 1e-3
    again = make_plan(80, star_fields=10, surveys=["DSS2-red"])
    assert [cutout.target for cutout in again[-10:]] == fields[:10]


def test_other_is_half_galaxies_half_clusters():
    """Galaxies and clusters have catalogue names and are chosen by the seed."""
    plan = make_plan(6, other=20, surveys=["DSS2-red"])
    others = [cutout.target for cutout in plan if cutout.target.label == "other"]
    kinds = [target.other_kind for target in others]
    assert kinds.count("galaxy") == kinds.count("cluster") == 10
    assert all(target.name.split()[0] in ("NGC", "IC") for target in others)
    assert plan == make_plan(6, other=20, surveys=["DSS2-red"])
    assert plan != make_plan(6, other=20, surveys=["DSS2-red"], random_state=1)


def test_manifest_has_the_columns_of_every_source(server, tmp_path):
    """The manifest of the fetched pictures passes the check that all sources pass."""
    from nebula_utils.dataset.sources import check_manifest

    fetch(server, tmp_path, make_plan(4, star_fields=2))
    table = hips.load_hips(tmp_path)
    check_manifest(table)
    assert "hips/DSS2-color/Sh2-1" in set(table["image_id"])
    assert table["image_id"].is_monotonic_increasing
    assert (table.loc[table["label"] == "other", "other_kind"] == "star_field").all()


def test_nebula_without_its_grey_picture_is_flagged(server, tmp_path):
    """Colour can't say anything about the type if every nebula has both."""
    plan = make_plan(3)
    lonely = plan[0].params["ra"]
    server.behave = lambda query, before: (
        "white"
        if query["ra"] == lonely and query["hips"].endswith("red")
        else "picture"
    )
    fetch(server, tmp_path, plan)
    flags = hips.load_hips(tmp_path).set_index("image_id")["flag"]
    assert flags.pop("hips/DSS2-color/Sh2-1") == "exists in colour only"
    assert (flags == "").all()


def test_nothing_fetched_is_an_error(tmp_path):
    """Loading an empty folder says which command fills it."""
    with pytest.raises(SourceError, match="nebula fetch hips"):
        hips.load_hips(tmp_path)


def parse(*options: str) -> argparse.Namespace:
    """Parse options of nebula fetch hips."""
    parser = argparse.ArgumentParser()
    hips.add_arguments(parser)
    return parser.parse_args(options)


def test_dry_run_asks_for_nothing(server, tmp_path, monkeypatch, capsys):
    """A dry run names files and megabytes, and leaves network and disk alone."""
    monkeypatch.setenv("NEBULA_CACHE", str(tmp_path / "cache"))
    args = parse("--dry-run", "--surveys", *SURVEYS, "--server", server.url)
    assert hips.run(args, make_catalogue(12)) == 0
    # 12 nebulae, 2 star fields, 2 galaxies and clusters in two surveys.
    assert "32 files, about 3 MB" in capsys.readouterr().out
    assert server.total == 0 and not (tmp_path / "cache").exists()


def test_estimate_learns_from_what_was_fetched(server, tmp_path):
    """The size of pictures that are there is used for those that are not."""
    fetch(server, tmp_path, make_plan(4))
    table = estimate_download(make_plan(8), tmp_path)
    assert list(table["files"]) == [4, 4] and list(table["there"]) == [4, 4]
    mean = np.mean([file.stat().st_size for file in tmp_path.glob("DSS2-red/*.jpg")])
    assert table.loc["DSS2-red", "megabytes"] == pytest.approx(4 * mean / 1e6, rel=1e-6)


@pytest.mark.parametrize(
    ("failing", "status"), [(("x",), 0), (("red",), 1), (("red", "color"), 2)]
)
def test_exit_status(server, tmp_path, monkeypatch, failing, status):
    """0 if all went well, 1 if some failed, 2 if all did."""
    monkeypatch.setenv("NEBULA_CACHE", str(tmp_path))
    server.behave = lambda query, before: (
        "bad_request" if query["hips"].endswith(failing) else "picture"
    )
    args = parse("--surveys", *SURVEYS, "--size-px", "64", "--server", server.url)
    assert hips.run(args, make_catalogue(5)) == status


def test_options_are_checked():
    """More than eight connections are refused."""
    with pytest.raises(SystemExit):
        parse("--connections", "50")


def start_run(server: HipsServer, cache: Path) -> subprocess.Popen:
    """Start a fetch of 250 nebulae in two surveys as its own process."""
    script = (
        "import logging, sys, test_hips\n"
        "from nebula_utils.dataset import hips\n"
        "logging.basicConfig()\n"
        "args = test_hips.parse(*sys.argv[1:])\n"
        "sys.exit(hips.run(args, test_hips.make_catalogue(250)))\n"
    )
    options = ["--surveys", *SURVEYS, "--size-px", "64", "--server", server.url]
    options += ["--star-fields", "0", "--other", "0"]
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, [here, here.parent, here.parents[1]]))
    return subprocess.Popen(
        [sys.executable, "-c", script, *options],
        env=os.environ | {"NEBULA_CACHE": str(cache), "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell ignores SIGINT, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, seconds: float = 60) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def find_finished(server: HipsServer, folder: Path) -> dict[str, int]:
    """Return the URLs whose picture is whole on disk, and how often each was asked."""
    plan = make_plan(250)
    done = {tuple(c.params.values()) for c in plan if (folder / c.file).exists()}
    asked = {}
    for url, count in server.requests.items():
        query = dict(
            part.split("=", 1)
            for part in url.split("?")[1]
            .replace("%2F", "/")
            .replace("%25", "%")
            .split("&")
        )
        if tuple(query.values()) in done:
            asked[url] = count
    assert len(asked) == len(done)
    return asked


def test_killed_three_times_ends_complete_without_a_repeat(tmp_path):
    """No finished file is asked for twice; only what a kill cut off is repeated."""
    rng = np.random.default_rng(1)
    folder, connections = tmp_path / "hips", 4
    finished: dict[str, int] = {}
    with HipsServer(delay=0.005) as server:
        for _ in range(3):
            target = server.total + int(rng.integers(60, 150))
            process = start_run(server, tmp_path)
            wait_for(lambda: server.total >= target)  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.wait()
            wait_for(lambda: server.busy == 0)
            for url, count in finished.items():
                assert server.requests[url] == count
            finished = find_finished(server, folder)
            assert 0 < len(finished) < 500
        process = start_run(server, tmp_path)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and "500 pictures" in output
        for url, count in finished.items():
            assert server.requests[url] == count
        repeats = server.total - len(server.requests)
    assert len(server.requests) == 500
    assert repeats <= 3 * connections
    records = read_manifest(folder)
    assert len({record["image_id"] for record in records}) == len(records) == 500
    assert len(list(folder.glob("*/*.jpg"))) == 500
    assert not list(folder.glob("*/.*"))


def test_interrupt_is_clean_and_resumes(tmp_path):
    """Ctrl-C ends a run within seconds, without a traceback, even if CDS hangs."""
    with HipsServer(delay=0.005) as server:
        server.behave = lambda query, before: "slow" if server.total > 80 else "picture"
        process = start_run(server, tmp_path)
        wait_for(lambda: server.total > 82)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, messages = process.communicate(timeout=60)
        assert time.monotonic() - start < 20
        assert process.returncode == hips.INTERRUPTED
        assert "run the same command again" in messages and "Traceback" not in messages
        server.behave = lambda query, before: "picture"
        done = len(read_manifest(tmp_path / "hips"))
        counts = fetch(server, tmp_path / "hips", make_plan(250))
    assert counts == {"ok": 500, "requested": 500 - done}


def test_pictures_of_the_server_are_usable():
    """The synthetic pictures of these tests are neither blank nor off the survey."""
    for cutout in make_plan(20):
        assert hips_store.classify_tile(make_picture(cutout.params))[0] == "ok"


def test_names_are_resolved_by_the_catalogue(server, tmp_path, monkeypatch):
    """The command takes any name of a nebula, and records the canonical one."""
    monkeypatch.setenv("NEBULA_CACHE", str(tmp_path))
    options = ["--names", "Thor's Helmet", "M 1", "--surveys", *SURVEYS]
    args = parse(*options, "--size-px", "64", "--server", server.url)
    assert hips.run(args) == 0
    table = hips.load_hips()
    assert set(table["nebula"]) == {"NGC 2359", "NGC 1952"}
    assert set(table["label"]) == {"emission", "supernova_remnant"}
