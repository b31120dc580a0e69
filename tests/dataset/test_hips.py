"""The source hips against a local server that speaks hips2fits."""

import argparse
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hips_server import SURVEYS, HipsServer, make_catalogue, make_picture, make_plan

from nebula_utils.config import NEBULA_TYPES
from nebula_utils.dataset import download, hips
from nebula_utils.dataset.manifest import check_manifest
from nebula_utils.dataset.screening import find_emptiness
from nebula_utils.errors import CacheError, SourceError


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Give the folder of the cutouts in an empty cache; nobody waits for long."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NEBULA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(download, "TIMEOUT", (2, 0.5))
    monkeypatch.setattr(download, "WHOLE_ANSWER", 0.6)
    monkeypatch.setattr(download, "TRIES", 3)
    return tmp_path / "cache/hips"


@pytest.fixture
def server():
    """Serve hips2fits locally."""
    with HipsServer() as running:
        yield running


def fetch(server, plan, connections=4):
    """Fetch from the local server."""
    return hips.fetch_cutouts(plan, server.url, connections)


def test_pictures_are_kept_with_what_is_known(server, folder):
    """A fetch keeps the service's bytes; the manifest passes every source's check."""
    plan = make_plan(6)
    counts = fetch(server, plan)
    assert counts == {"ok": 12, "empty": 0, "failed": 0, "requested": 12}
    table = hips.load_hips()
    check_manifest(table)
    assert len(table) == 12 and "hips/DSS2-color/Sh2-1" in set(table["image_id"])
    assert table["credit"].str.contains("Digitized Sky Survey").all()
    expected = make_catalogue(6).set_index("name")
    for row in table.itertuples():
        nebula = expected.loc[row.image_id.rpartition("/")[2]]
        assert row.ra_deg == pytest.approx(nebula["ra_deg"])
        assert row.label == nebula["type"]
    assert all("nebula-utils" in agent for agent in server.agents)


def test_query_is_of_two_and_a_half_sizes(server):
    """A nebula of 20' is asked for in a field of 50', grey bands with a stretch."""
    catalogue = make_catalogue(1).assign(size_arcmin=20.0)
    plan = hips.make_plan(catalogue, SURVEYS, 64)
    colour, red = (hips._make_query(row) for row in plan.itertuples())
    assert float(colour["fov"]) == pytest.approx(50 / 60, abs=1e-6)
    assert colour["hips"] == "CDS/P/DSS2/color"
    assert "stretch" not in colour and red["cmap"] == "Greys_r"


def test_every_nebula_is_planned_in_every_survey():
    """Each type has the same share of colour and of grey cutouts; footprints count."""
    catalogue = make_catalogue(24).assign(dec_deg=40.0)
    plan = hips.make_plan(catalogue)
    table = plan.value_counts(["class", "survey"]).unstack(fill_value=0)
    assert table.shape == (7, 7)
    assert (table.loc[list(NEBULA_TYPES)] == 4).all(axis=None)
    south = hips.make_plan(catalogue.assign(dec_deg=-45.0))
    nebulae = south[south["class"] != "other"]
    assert set(nebulae["survey"]) == {"DSS2-color", "DSS2-red", "DSS2-blue"}


def test_second_run_asks_for_nothing(server, folder):
    """What is there is not asked for again, empty tiles included."""
    server.behave = lambda query, before: (
        "white" if query["hips"][-1] == "d" else "picture"
    )
    fetch(server, make_plan(5))
    counts = fetch(server, make_plan(5))
    assert server.total == 10
    assert counts == {"ok": 5, "empty": 5, "failed": 0, "requested": 0}
    assert len(hips.load_hips()) == 5


@pytest.mark.parametrize("behaviour", ["flat", "white", "half_white"])
def test_empty_tiles_are_recognised(server, folder, behaviour):
    """A tile without sky is known as such and not kept."""
    server.behave = lambda query, before: behaviour
    assert fetch(server, make_plan(1))["empty"] == 2
    assert not list(folder.glob("*/*.jpg"))


def test_dark_sky_is_not_taken_for_an_empty_tile():
    """A very dark field with a few stars is usable, and so are this test's pictures."""
    rng = np.random.default_rng(0)
    image = rng.normal(6, 2, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    image[rng.integers(0, 64, 60), rng.integers(0, 64, 60)] = 230
    assert find_emptiness(image) == ""
    for row in make_plan(5).itertuples():
        assert find_emptiness(make_picture(hips._make_query(row))) == ""


@pytest.mark.parametrize(
    "behaviour",
    ["error", "bad_gateway", "html", "cut", "cut_silently", "nothing", "garbage"]
    + ["slow", "trickle"],
)
def test_passing_trouble_is_asked_again(server, behaviour):
    """One failed answer of any kind is followed by another attempt, and succeeds."""
    server.behave = lambda query, before: "picture" if before else behaviour
    assert fetch(server, make_plan(1))["ok"] == 2
    assert set(server.requests.values()) == {2}


@pytest.mark.parametrize(
    ("behaviour", "words", "asked"),
    [
        ("bad_gateway", "too many 502 error responses (3 attempts)", 3),
        ("html", "text/html instead of a picture (3 attempts)", 3),
        ("cut_silently", "cut off", 3),
        ("trickle", "no answer in time", 3),
        ("slow", "timed out", 3),
        ("nothing", "closed connection without response (3 attempts)", 3),
        ("bad_request", "Something is wrong", 1),
        ("wrong_size", "32 × 32 px", 1),
        ("huge", "larger than", 1),
    ],
)
def test_lasting_trouble_is_said(server, folder, caplog, behaviour, words, asked):
    """The reason is told, nothing is kept, and the next run tries again."""
    server.behave = lambda query, before: behaviour
    plan = make_plan(1, surveys=["DSS2-color"])
    if behaviour == "huge":
        download.WHOLE_ANSWER = 60
    assert fetch(server, plan)["failed"] == 1
    assert words in caplog.text and server.total == asked
    assert not list(folder.glob("*/*"))
    server.behave = lambda query, before: "picture"
    assert fetch(server, plan)["ok"] == 1


@pytest.mark.parametrize("behaviour", ["too_many", "too_many_date"])
def test_retry_after_is_kept_to(server, behaviour):
    """After 429 the same picture is asked for no sooner than the service said."""
    server.behave = lambda query, before: "picture" if before else behaviour
    assert fetch(server, make_plan(1, surveys=["DSS2-red"]))["ok"] == 1
    assert np.diff(server.times).max() > 0.8


def test_long_retry_after_ends_the_run(server):
    """Nobody sits in front of a terminal for an hour: the message names the time."""
    server.behave, server.retry_after = lambda query, before: "too_many", "3600"
    with pytest.raises(SourceError, match="60 minutes"):
        fetch(server, make_plan(20), connections=1)
    assert server.total <= 2


def test_service_in_trouble_ends_the_run(server):
    """A service that only fails is not asked thousands of times."""
    server.behave = lambda query, before: "bad_request"
    with pytest.raises(SourceError, match="20 files failed one after the other"):
        fetch(server, make_plan(60))
    assert server.total < 20 + 10


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/hips2fits", "can't reach .*check the network"),
        ("hips2fits", "no usable address"),
        ("ftp://127.0.0.1/", "no usable address"),
    ],
)
def test_wrong_address_and_no_network_say_what_to_do(address, words):
    """One clear error, within seconds."""
    start = time.monotonic()
    with pytest.raises(SourceError, match=words):
        hips.fetch_cutouts(make_plan(20), address)
    assert time.monotonic() - start < 30


def test_connections_are_limited(server):
    """No more requests are under way than was said."""
    server.delay = 0.02
    fetch(server, make_plan(12), connections=2)
    assert server.busiest == 2


@pytest.mark.parametrize("damage", ["remove", "change"])
def test_lost_or_changed_file_is_fetched_again(server, folder, damage):
    """A file counts only if it has the content that its name says."""
    fetch(server, make_plan(3))
    victim = sorted(folder.glob("*/*.jpg"))[2]
    before = victim.read_bytes()
    victim.unlink() if damage == "remove" else victim.write_bytes(
        before[:-9] + b"123456789"
    )
    assert len(hips.load_hips()) == 5
    assert fetch(server, make_plan(3))["requested"] == 1
    assert victim.read_bytes() == before and len(hips.load_hips()) == 6


def test_damaged_manifest_is_said_and_mended(server, folder):
    """No label that a flipped bit has changed is believed."""
    fetch(server, make_plan(3))
    expected = hips.load_hips()
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"emission", b"emissiom"))
    with pytest.raises(SourceError, match="damaged"):
        hips.load_hips()
    assert fetch(server, make_plan(3))["requested"] == 0
    pd.testing.assert_frame_equal(hips.load_hips(), expected)


def test_other_query_and_corrected_label(server):
    """Another size is another picture; a corrected type needs no request."""
    fetch(server, make_plan(2))
    assert fetch(server, make_plan(2, size_px=96))["requested"] == 4
    catalogue = make_catalogue(2).assign(type="reflection")
    plan = hips.make_plan(catalogue, SURVEYS, 64)
    assert fetch(server, plan)["requested"] == 0
    table = hips.load_hips()
    assert len(table) == 4 and set(table["label"]) == {"reflection"}


def test_full_disk_is_named(server, folder, monkeypatch):
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
        fetch(server, make_plan(20))
    time.sleep(0.5)  # for what was under way
    assert len(hips._find_files(folder)) == len(list(folder.glob("*/*"))) == 3


def test_selection_conditions_hold():
    """Types, sizes, constellations and the limit choose as they say."""
    catalogue = make_catalogue(60)
    plan = make_plan(60, types=["dark"], min_size=20, constellation=["ori"])
    chosen = catalogue[catalogue["name"].isin(plan["nebula"])]
    assert set(chosen["type"]) == {"dark"} and chosen["size_arcmin"].min() >= 20
    limited = make_plan(60, limit=6, surveys=["DSS2-red"])
    assert sorted(limited["class"]) == sorted(NEBULA_TYPES)


@pytest.mark.parametrize(
    "wrong",
    [{"types": ["galaxy"]}, {"names": ["NGC 0"]}, {"min_size": 1e6}]
    + [{"surveys": ["CDS/P/Unheard/of"]}],
)
def test_wrong_selection_is_an_error(wrong):
    """Unknown names and empty selections say what is wrong."""
    with pytest.raises(SourceError, match="unknown|no nebula fits"):
        make_plan(6, **wrong)


def test_other_is_of_every_kind():
    """A third as many galaxies, clusters and star fields as nebulae, with places."""
    catalogue = make_catalogue(80)
    plan = hips.make_plan(catalogue, ["DSS2-red"])
    kinds = plan["other_kind"].value_counts().to_dict()
    assert kinds.pop("") == 80 and set(kinds) == {"galaxy", "cluster", "star_field"}
    assert sum(kinds.values()) == 26
    assert plan[["ra_deg", "dec_deg"]].notna().all(axis=None)
    assert plan.equals(hips.make_plan(catalogue, ["DSS2-red"]))


def test_pictures_in_colour_only_are_flagged(server):
    """A nebula without its grey pictures would let colour tell its type."""
    plan = make_plan(4)
    lonely = f"{plan.loc[plan['nebula'] == 'Sh2-1', 'ra_deg'].iloc[0]:.6f}"
    server.behave = lambda query, before: (
        "white"
        if query["ra"] == lonely and query["hips"].endswith("red")
        else "picture"
    )
    fetch(server, plan)
    flags = hips.load_hips().set_index("image_id")["flag"]
    assert flags.pop("hips/DSS2-color/Sh2-1") == "exists in colour only"
    assert (flags == "").all()


def test_nothing_fetched_is_an_error():
    """Loading an empty folder says which command fills it."""
    with pytest.raises(SourceError, match="nebula fetch hips"):
        hips.load_hips()


def parse(*options: str) -> argparse.Namespace:
    """Parse options of nebula fetch hips."""
    parser = argparse.ArgumentParser()
    hips.add_arguments(parser)
    return parser.parse_args(options)


def test_dry_run_asks_for_nothing(server, folder, capsys):
    """A dry run names files and megabytes, and leaves network and disk alone."""
    args = parse("--dry-run", "--surveys", *SURVEYS, "--server", server.url)
    assert hips.run(args, make_catalogue(12)) == 0
    # 12 nebulae and 4 of what is none, in two surveys.
    assert "32 files, about 3 MB" in capsys.readouterr().out
    assert server.total == 0 and not folder.parent.exists()
    with pytest.raises(SystemExit):
        parse("--connections", "50")


@pytest.mark.parametrize(
    ("failing", "status"), [(("x",), 0), (("red",), 1), (("red", "color"), 2)]
)
def test_exit_status(server, failing, status):
    """0 if all went well, 1 if some failed, 2 if all did."""
    server.behave = lambda query, before: (
        "bad_request" if query["hips"].endswith(failing) else "picture"
    )
    args = parse("--surveys", *SURVEYS, "--size-px", "64", "--server", server.url)
    assert hips.run(args, make_catalogue(5)) == status


def test_names_are_resolved_by_the_catalogue(server):
    """The command takes any name of a nebula, and keeps the canonical one."""
    options = ["--names", "Thor's Helmet", "M 1", "--surveys", *SURVEYS]
    args = parse(*options, "--size-px", "64", "--server", server.url)
    assert hips.run(args) == 0
    table = hips.load_hips()
    assert set(table["nebula"]) == {"NGC 2359", "NGC 1952"}
    assert set(table["label"]) == {"emission", "supernova_remnant"}


def test_interrupt_is_clean_and_resumes(server, folder):
    """Ctrl-C ends a run within seconds, without a traceback, even if CDS hangs."""
    server.delay = 0.005
    server.behave = lambda query, before: "slow" if server.total > 80 else "picture"
    script = (
        "import logging, sys, hips_server, test_hips\n"
        "from nebula_utils.dataset import hips\n"
        "logging.basicConfig()\n"
        "args = test_hips.parse(*sys.argv[1:])\n"
        "sys.exit(hips.run(args, hips_server.make_catalogue(250)))\n"
    )
    options = ["--surveys", *SURVEYS, "--size-px", "64", "--server", server.url]
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, (here, here.parent, here.parent.parent)))
    process = subprocess.Popen(
        [sys.executable, "-c", script, *options],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A job in the background of a shell ignores SIGINT, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 60
    while server.total <= 82:
        assert time.monotonic() < end, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, messages = process.communicate(timeout=60)
    assert time.monotonic() - start < 20
    assert process.returncode == hips.INTERRUPTED
    assert "run the same command again" in messages and "Traceback" not in messages
    server.behave = lambda query, before: "picture"
    done = len(list(folder.glob("*/*.jpg")))
    counts = fetch(server, make_plan(250), connections=8)
    assert counts["ok"] == 500 and counts["requested"] == 500 - done
