"""A cluster gives what one machine gives, whatever happens to workers and pictures."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import fake_workers
import fsspec
import numpy as np
import pytest
from PIL import Image

from nebula_utils.config import DEFAULT_BACKBONE, REPOSITORY
from nebula_utils.errors import BackboneError, ClusterError, SourceError
from nebula_utils.features import extraction, survey
from nebula_utils.features.backbone import load_backbone
from nebula_utils.features.engines import FLOAT32
from nebula_utils.images import reading
from nebula_utils.workflow import cli

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

PICTURES = 21  # not a multiple of the tasks' size
TASK_SIZE = 4
PRELOAD = {"distributed.worker.preload": ["fake_workers"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Noise pictures of several sizes, one equal pair, one that is no picture."""
    place = tmp_path / "pictures"
    place.mkdir()
    rng = np.random.default_rng(1)
    for n in range(PICTURES - 2):
        pixels = rng.integers(0, 256, (70 + n, 90, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{n:02d}.png")
    (place / "twin.png").write_bytes((place / "00.png").read_bytes())
    (place / "07b.jpg").write_bytes(b"no picture")
    return place


@pytest.fixture(scope="module")
def running():
    """Give the address of a cluster of two processes, each watched by a nanny."""
    settings = {  # one death less to wait for, and this process left as it is
        "distributed.scheduler.allowed-failures": 1,
        "distributed.nanny.pre-spawn-environ": {},
        **PRELOAD,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as local,
    ):
        yield local.scheduler_address


@pytest.fixture(autouse=True)
def fake_network(monkeypatch, tmp_cache):
    """Let this machine use the tests' network, as workers do, on small tasks."""
    monkeypatch.setattr(survey, "load_backbone", fake_workers.load)
    monkeypatch.setattr(survey, "TASK_SIZE", TASK_SIZE)
    with dask.config.set(PRELOAD):
        yield


@pytest.fixture
def expected(folder, tmp_path):
    """Give the file that one machine writes, and what it leaves out."""
    return _extract(folder, None, store=str(tmp_path / "alone"))


def _draw(colour):
    """Return a picture of one colour with a black quarter: something to see."""
    picture = Image.new("RGB", (80, 80), colour)
    picture.paste("black", (40, 40, 80, 80))
    return picture


def _extract(folder, scheduler, name="fake", store=None):
    out = folder.parent / f"{scheduler and 'found'}.npz"
    store = store or str(folder.parent / "store")
    left_out = survey.extract_to_npz(
        folder, out, name, scheduler=scheduler, store=store
    )
    return out, left_out


def _list_shards(folder):
    found = (folder.parent / "store").rglob("shard-*.npz")
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_cluster_writes_the_same_file(folder, running, expected):
    """Byte for byte, with the same files left out for the same reasons."""
    out, left_out = _extract(folder, running)
    assert out.read_bytes() == expected[0].read_bytes()
    assert left_out == expected[1]
    assert [Path(path).name for path, _ in left_out] == ["07b.jpg"]


def test_relative_paths_stay_relative(folder, running, monkeypatch):
    """Workers have another working folder, but the file says what was asked for."""
    monkeypatch.chdir(folder.parent)
    out, _ = _extract(Path("pictures"), running)
    with np.load(out) as found:
        assert found["path"][0] == str(Path("pictures") / "00.png")


def test_a_killed_worker_loses_nothing(folder, running, expected):
    """Dask starts its task again elsewhere; the network kills its process once."""
    lives = folder.parent / "lives"
    lives.mkdir()
    (lives / "1").touch()
    _draw("magenta").save(folder / "05.png")
    _extract(folder, None)
    shutil.rmtree(folder.parent / "store")
    out, _ = _extract(folder, running, str(lives))
    assert not list(lives.iterdir())
    assert out.read_bytes() == expected[0].read_bytes()


def test_a_picture_that_always_kills_is_reported(folder, running):
    """The other tasks are done, and the next try needs only the one."""
    lives = folder.parent / "lives"
    lives.mkdir()
    for n in range(9):
        (lives / str(n)).touch()
    _draw("magenta").save(folder / "05.png")
    with pytest.raises(ClusterError, match="of 6 tasks failed.*png.*KilledWorker"):
        _extract(folder, running, str(lives))
    assert not (folder.parent / "found.npz").exists()
    # Dask may blame a task that waited beside the deadly one, on a busy machine.
    assert 4 <= len(_list_shards(folder)) <= 5
    assert len(list(lives.iterdir())) == 9 - 2  # the setting of `running`, plus one


def test_a_restart_computes_only_what_changed(folder, running):
    """A lost, a damaged and an outdated shard are made again; the others stand."""
    out, _ = _extract(folder, running)
    before = _list_shards(folder)
    lost, damaged, *_ = sorted(before)
    lost.unlink()
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    _draw("red").save(folder / "twin.png")  # in the last task
    _extract(folder, running)
    after = _list_shards(folder)
    assert len(after.keys() - before.keys()) == 1
    changed = {path for path in before if after.get(path) != before[path]}
    assert changed == {lost, damaged}
    alone, _ = _extract(folder, None, store=str(folder.parent / "alone"))
    assert out.read_bytes() == alone.read_bytes()


def test_the_store_is_the_cache_of_one_machine(folder, running, monkeypatch):
    """What workers embedded is found without a cluster, and no picture is decoded."""
    cache = str(folder.parent / "cache" / "features")
    found, left_out = _extract(folder, running, store=cache)
    monkeypatch.setattr(reading, "read_image", None)
    out = folder.parent / "alone.npz"
    assert survey.extract_to_npz(folder, out, "fake") == left_out
    assert out.read_bytes() == found.read_bytes()


def test_other_weights_on_a_worker_are_refused(folder, running):
    """Rows of two networks must never stand in one file."""
    with pytest.raises(BackboneError, match="install the same version and weights"):
        _extract(folder, running, "other")


def test_no_usable_picture_is_an_error(tmp_path, running):
    """As on one machine."""
    (tmp_path / "manifest.csv").write_text("path\ngone.jpg\n")
    with pytest.raises(SourceError, match="gone.jpg: no such file"):
        _extract(tmp_path / "manifest.csv", running)


def test_a_lost_scheduler_costs_no_result(folder, expected):
    """It is said what to do, and a new one gets the rest only."""
    port = _find_free_port()
    scheduler, address = _start_scheduler(port), f"tcp://127.0.0.1:{port}"

    def kill():
        while not _list_shards(folder):
            time.sleep(0.02)
        os.kill(scheduler.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(ClusterError, match="was lost .*; what is done stays"):
            _extract(folder, address, "slow")
    finally:
        thread.join()
        scheduler.kill()
        scheduler.wait()
    before = _list_shards(folder)
    out, _ = _extract(folder, "local", "slow")
    assert before.items() <= _list_shards(folder).items()
    assert out.read_bytes() == expected[0].read_bytes()


def test_an_unreachable_scheduler_is_an_error(folder, monkeypatch):
    """With its address and what to do."""
    with dask.config.set({"distributed.comm.timeouts.connect": "200ms"}):
        address = f"tcp://127.0.0.1:{_find_free_port()}"
        with pytest.raises(ClusterError, match=f"no Dask cluster at {address}"):
            _extract(folder, address)


def test_dask_is_an_option(folder, monkeypatch):
    """Without it the message names what to install."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"pip install 'nebula-utils\[cluster\]'"):
        _extract(folder, "local")


def test_store_and_pictures_may_lie_in_an_object_store(tmp_path):
    """Through fsspec; the one of this process stands for it."""
    memory = fsspec.filesystem("memory")
    Image.linear_gradient("L").save(tmp_path / "grey.png")
    memory.pipe_file("/sky/grey.png", (tmp_path / "grey.png").read_bytes())
    paths = ["memory://sky/grey.png", "memory://sky/no.png"]
    network = fake_workers.load("fake")
    given = paths, ("fake", "float32", network.sha256), "memory://sky/store"
    hashes = survey.embed_shard(*given)
    assert hashes[1] == {1: "no such file: check its name and folder"}
    (shard,) = memory.find("/sky/store")
    found = extraction.extract_features(
        paths, network, store="memory://sky/store", hashes=hashes
    )
    local = extraction.extract_features([tmp_path / "grey.png"], network)
    np.testing.assert_array_equal(found.X, local.X)
    assert found.failed == hashes[1]
    memory.pipe_file(shard, memory.cat_file(shard)[:-9])
    assert survey.embed_shard(*given) == hashes
    assert memory.size(shard) > 100


def test_the_command_takes_a_scheduler(folder, running, expected, capsys):
    """Exit status 1 and the same file, as without one."""
    out = folder.parent / "told.npz"
    words = ["extract", str(folder), "--out", str(out), "--backbone", "fake"]
    assert cli.main([*words, "--scheduler", running]) == 1
    assert out.read_bytes() == expected[0].read_bytes()
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n" and "07b.jpg" in shown.err


def test_the_example_of_the_documentation_runs(folder, expected):
    """On a LocalCluster of two processes, but with the tests' network."""
    text = (REPOSITORY / "docs" / "cluster.md").read_text("utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    fake = "import fake_workers\n\nfake_workers.dask_setup(None)\n"
    code = fake + example.replace("my_pictures", str(folder))
    (folder.parent / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=folder.parent,
        env=_make_environment(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder / '07b.jpg'}: not an image: this is text\n"
    made = folder.parent / "my_features.npz"
    with np.load(made) as found, np.load(expected[0]) as alone:
        assert all(np.array_equal(found[name], alone[name]) for name in alone)


def test_options_of_a_cluster_need_a_cluster(folder, capsys):
    """--workers alone would silently do nothing."""
    words = ["extract", str(folder), "--out", "x.npz", "--workers", "2"]
    assert cli.main(words) == 2
    assert "--scheduler" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_network_gives_the_same_bits(textures, tmp_path, monkeypatch):
    """Though a worker has another number of threads."""
    monkeypatch.undo()
    pictures = sorted(textures.glob("m4*.png"))[:5]
    network = load_backbone()
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    alone = extraction.extract_features(pictures, network, store=here)
    wanted = DEFAULT_BACKBONE, FLOAT32, network.sha256
    with dask.config.set({"distributed.worker.preload": []}):
        survey.fill_store(pictures, wanted, n_workers=2, store=there)
    monkeypatch.setattr(reading, "read_image", None)
    found = extraction.extract_features(pictures, network, store=there)
    np.testing.assert_array_equal(found.X, alone.X)


def _find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start_scheduler(port):
    code = (
        "import time, distributed, fake_workers\n"
        "fake_workers.dask_setup(None)\n"
        "if __name__ == '__main__':\n"
        f"    local = distributed.LocalCluster(n_workers=1, scheduler_port={port},\n"
        "        threads_per_worker=1, dashboard_address=None, processes=False,\n"
        "        silence_logs=50)\n"
        "    time.sleep(60)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], env=_make_environment())


def _make_environment():
    # Other processes must find the tests' modules too.
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths}
