"""What is timed: functions that do something once and return seconds, and perhaps more.

Each takes a `Bench`, which makes what several of them need. A row of `run.ROWS` names
them, as ``"function"`` or ``"function:figure"``.
"""

import contextlib
import functools
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from nebula_utils.classifier.classifier import load_classifier
from nebula_utils.config import cache_dir
from nebula_utils.dataset.stellarium import load_stellarium
from nebula_utils.features import weights
from nebula_utils.features.backbone import (
    DEFAULT_BACKBONE,
    Backbone,
    load_backbone,
    resolve_backbone,
)
from nebula_utils.features.engines import FAST, count_cores
from nebula_utils.features.extraction import embed_views, extract_features
from nebula_utils.features.views import Preprocessing
from nebula_utils.images import reading

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 1632, 1224  # px, of the generated photos: 2 megapixels
CLASSES = {"dark": (4, 11), "emission": (7, 14)}  # cells in the cloud's height
SMALL_SIDE = 256  # px, of the many small pictures
N_VIEWS = 96  # that peers run on: three batches of 32
PEERS = ("onnx", "onnxruntime", "openvino")
OURS = """
import sys, numpy as np
from pathlib import Path
from nebula_utils.training.heads import LinearHead
from nebula_utils.workflow import cli
if cli.main(["extract", *sys.argv[1:]]): sys.exit(1)
with np.load(sys.argv[3]) as found:
    X, folders = found["features"], [Path(path).parent.name for path in found["path"]]
LinearHead().fit(X, np.array(folders))
"""
# Keras's own way: its pipeline decodes in full, `predict` once, then scikit-learn.
KERAS = """
import os, sys, numpy as np
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, time, json
from sklearn.linear_model import LogisticRegression
photos = keras.utils.image_dataset_from_directory(
    sys.argv[1], image_size=(224, 224), batch_size=32, shuffle=False, verbose=False)
names = [os.path.basename(os.path.dirname(path)) for path in photos.file_paths]
network = keras.applications.MobileNet(
    weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
preprocess = keras.applications.mobilenet.preprocess_input
start = time.perf_counter()
X = network.predict(photos.map(lambda x, _: preprocess(x)).prefetch(2), verbose=0)
features = time.perf_counter() - start
LogisticRegression(max_iter=1000).fit(X, np.searchsorted(sorted(set(names)), names))
print(json.dumps({"features": features}))
"""
# A child's largest memory counts its parent's: this small process stands between them.
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6)
sys.exit(status)
"""

Figures = dict[str, float]


class Bench:
    """The pictures and networks that are measured with, in an empty folder."""

    def __init__(self, scratch: Path, n_photos: int) -> None:
        self.scratch, self.n_photos = scratch, n_photos
        self.network, self.fast = load_backbone(), load_backbone(engine=FAST)
        self._numbers = itertools.count()
        self.texts = self.store = scratch

    @functools.cached_property
    def photos(self) -> list[Path]:
        """JPEGs in one folder a class, no two alike, with something to learn."""
        noise = np.random.default_rng(0).normal(0, 6, (HEIGHT, WIDTH, 3))
        made = []
        for i in range(self.n_photos):
            name = list(CLASSES)[i % len(CLASSES)]
            path = self.scratch / "photos" / name / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_photo(i, name, noise.astype(np.int16)))
            made.append(path)
        return sorted(made)

    @functools.cached_property
    def batch(self) -> Path:
        """File of views of the photos, float32 (n, 224, 224, 3)."""
        some = itertools.islice(itertools.cycle(self.photos), N_VIEWS)
        views = [make_view(path) for path in some]
        np.save(self.scratch / "batch.npy", np.stack(views))
        return self.scratch / "batch.npy"

    def new(self, name: str) -> Path:
        """Return a path that is not there yet."""
        return self.scratch / f"{name}-{next(self._numbers)}"

    def small(self, n: int) -> Path:
        """Return a folder of small JPEGs whose bytes differ, though few pictures do."""
        folder = self.scratch / f"small-{n}"
        if not folder.is_dir():
            folder.mkdir()
            content = encode(Image.linear_gradient("L").convert("RGB"))
            for i in range(n):
                (folder / f"{i:08d}.jpg").write_bytes(content + b"%d" % i)
        return folder


def draw_photo(seed: int, name: str, noise: np.ndarray) -> bytes:
    """Return a JPEG of a cloud with stars."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(*CLASSES[name]))
    coarse = rng.integers(0, 160, (rows, rows * WIDTH // HEIGHT, 3), dtype=np.uint8)
    cloud = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    noise = np.roll(noise, rng.integers(0, HEIGHT, 2), axis=(0, 1))
    picture = np.clip(np.asarray(cloud, np.int16) + noise, 0, 255).astype(np.uint8)
    stars = rng.integers(0, (HEIGHT, WIDTH), (4000, 2))
    picture[stars[:, 0], stars[:, 1]] = 255
    return encode(Image.fromarray(picture))


def encode(picture: Image.Image) -> bytes:
    """Return a JPEG."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def make_view(path: Path | bytes) -> np.ndarray:
    """Decode a photo and return the network's input, as `extract_features` does."""
    preprocessing = Preprocessing()
    return preprocessing.make_views(preprocessing.read(path))[0]


def run(
    *command: object, cache: Path | None = None, python: object = sys.executable
) -> str:
    """Run a Python process; return what it printed."""
    environment = dict(os.environ)
    if cache:  # the weights, but no features
        cache.mkdir()
        (cache / "backbones").symlink_to((cache_dir() / "backbones").resolve())
        environment["NEBULA_CACHE"] = str(cache)
    done = subprocess.run(
        [str(python), *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise RuntimeError(f"{Path(str(command[0])).name}: {said[0]}")
    return done.stdout


def read_figures(printed: str) -> Figures:
    """Read the JSON of the last line."""
    return json.loads(printed.splitlines()[-1])


def clock(act: Any, *given: Any) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    act(*given)
    return time.perf_counter() - start


def original(bench: Bench) -> Figures:
    """Go the original's way: a process from photos to a trained head."""
    bench.texts = bench.new("texts")
    folder, graph = bench.photos[0].parents[1], weights.fetch_frozen_graph()
    start = time.perf_counter()
    words = (HERE / "original.py", folder, "--graph", graph, "--texts", bench.texts)
    found = read_figures(run(*words))
    return {**found, "seconds": time.perf_counter() - start}


def keras(bench: Bench) -> Figures:
    """Go Keras's way: a process from photos to a trained head."""
    start = time.perf_counter()
    found = read_figures(run("-c", KERAS, bench.photos[0].parents[1]))
    return {**found, "seconds": time.perf_counter() - start}


def ours(bench: Bench, *words: str) -> float:
    """Go our way: `nebula extract` from an empty store, and a logistic head."""
    out, folder = bench.new("features.npz"), bench.photos[0].parents[1]
    command = ("-c", OURS, folder, "--out", out.with_suffix(".npz"), *words)
    return clock(functools.partial(run, *command, cache=bench.new("cache")))


def extract(bench: Bench, network: Backbone, store: Path) -> Figures:
    """Embed the photos in this process."""
    photos, cpu = bench.photos, time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):  # no bar between those of rounds
        seconds = clock(lambda: extract_features(photos, network, store=str(store)))
    cpu = time.process_time() - cpu
    return {"seconds": seconds, "idle": seconds * count_cores() / cpu}


def cold(bench: Bench, network: Backbone) -> Figures:
    """Embed the photos, nothing stored before."""
    store = bench.new("store")
    if network is bench.network:
        bench.store = store
    return extract(bench, network, store)


def warm(bench: Bench) -> Figures:
    """Read what `cold` has stored; count forward passes and decoded photos."""
    with (
        mock.patch.object(Backbone, "embed") as passes,
        mock.patch.object(reading, "read_image") as decoded,
    ):
        found = extract(bench, bench.network, bench.store)
    return {**found, "done": passes.call_count + decoded.call_count}


def floor(bench: Bench, network: Backbone) -> Figures:
    """Decode the photos on all cores, then run the network alone on all cores."""
    cores, views = count_cores(), np.load(bench.batch)
    forks = [network.fork() for _ in range(cores)]
    n = len(bench.photos) // cores

    def run_alone(fork: Backbone) -> None:
        for i in range(0, n, 8):
            fork.embed(views[i % N_VIEWS : i % N_VIEWS + 8])

    for fork in forks:
        fork.embed(views[:8])
    with ThreadPoolExecutor(cores) as pool:
        decoding = clock(lambda: list(pool.map(make_view, bench.photos)))
        forward = clock(lambda: list(pool.map(run_alone, forks)))
    found = {"decoding": decoding / (decoding + forward), "rate": cores * n / forward}
    return {"seconds": decoding + forward, **found}


def peer(name: str, bench: Bench) -> Figures:
    """Give another's forward passes alone, in pictures a second."""
    python: object = sys.executable
    file: object = bench.network.file
    if name == "tfhub":
        file = resolve_backbone(DEFAULT_BACKBONE)
    if name == "onnxruntime":
        file = bench.scratch / "layers.npz"
        layers = weights.read_frozen_weights(weights.fetch_frozen_graph())
        arrays = {f"kernel{i}": kernel for i, (kernel, _) in enumerate(layers)}
        np.savez(file, **arrays, **{f"bias{i}": b for i, (_, b) in enumerate(layers)})
    if name.startswith(("onnx", "openvino")):
        python = make_peers()
    found = read_figures(run(HERE / "peers.py", name, bench.batch, file, python=python))
    return {"rate": N_VIEWS / found["seconds"], "mean": found["mean"]}


def make_peers() -> Path:
    """Make an environment of their own for peers that we do not depend on."""
    folder = cache_dir() / "benchmark-peers"
    if not (folder / "done").is_file():
        run("-m", "venv", "--clear", folder)
        python = folder / "bin" / "python"
        run("-m", "pip", "install", "--quiet", "numpy", *PEERS, python=python)
        (folder / "done").touch()
    return folder / "bin" / "python"


def enlarge(path: str) -> bytes:
    """Return a texture as a JPEG whose longer side is 1,600 px."""
    picture = Image.fromarray(reading.read_image(Path(path)))
    scale = 1600 / max(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    return encode(picture.resize((width, height), Image.Resampling.BICUBIC))


def fidelity(bench: Bench) -> Figures:
    """Compare decoding at reduced size with full decoding and antialiased resizing."""
    textures = load_stellarium()["path"].to_numpy()
    chosen = textures[np.linspace(0, len(textures) - 1, N_VIEWS).astype(int)]
    exact, found = [], []
    for content in map(enlarge, chosen):
        full = Image.fromarray(reading.centre_crop(reading.read_image(content)))
        small = full.resize((224, 224), Image.Resampling.BILINEAR)
        exact.append([reading.to_float(np.asarray(small))])
        found.append([make_view(content)])
    X, Y = (embed_views(views, bench.network)[:, 0] for views in (exact, found))
    return compare(X, Y)


def fidelity_fast(bench: Bench) -> Figures:
    """Compare the fast engine with float32."""
    views = np.load(bench.batch)[: len(bench.photos)]
    return compare(bench.network.embed(views), bench.fast.embed(views))


def compare(X: np.ndarray, Y: np.ndarray) -> Figures:
    """Return the median and the worst cosine of rows."""
    norms = np.linalg.norm(X, axis=1) * np.linalg.norm(Y, axis=1)
    cosines = (X * Y).sum(1) / norms
    return {"median": float(np.median(cosines)), "worst": float(cosines.min())}


def upload(bench: Bench) -> float:
    """Answer one upload of the page, warm, strip included: the median of ten."""
    classifier, data = load_classifier(), bench.photos[0].read_bytes()

    def answer() -> None:
        classifier.make_strip(classifier.classify(data).picture)

    answer()
    return statistics.median(clock(answer) for _ in range(10))


def process(bench: Bench) -> float:
    """Run `nebula classify` on one photo."""
    return clock(run, "-m", "nebula_utils", "classify", bench.photos[0])


def original_upload(bench: Bench) -> float:
    """Run a process with TensorFlow and the frozen graph on one photo."""
    graph = weights.fetch_frozen_graph()
    command = (HERE / "original.py", bench.photos[0], "--graph", graph, "--upload")
    return clock(run, *command)


def many(bench: Bench, n: int, *words: object) -> Figures:
    """Run `nebula extract` on many small pictures; tell memory and time a picture."""
    out = bench.new("many").with_suffix(".npz")
    command = ["-c", LAUNCHER, sys.executable, "-m", "nebula_utils", "extract"]
    command += [str(bench.small(n)), "--out", str(out), *map(str, words)]
    start = time.perf_counter()
    memory = float(run(*command, cache=bench.new("cache")))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "each": seconds / n, "rate": n / seconds, "MB": memory}


def find(name: str) -> Any:
    """Return the function of a name; a dash comes before what else it takes."""
    kind, _, more = name.partition("-")
    if kind == "many":
        return lambda bench: many(bench, int(more))
    if kind == "cluster":
        words = ("--scheduler", "local", "--workers", more)
        return lambda bench: many(bench, 10_000, *words)
    if kind == "peer":
        return functools.partial(peer, more)
    if kind == "ours":
        return lambda bench: ours(bench, "--engine", more or "float32")
    if kind in ("cold", "floor"):
        function = {"cold": cold, "floor": floor}[kind]
        return lambda bench: function(bench, bench.fast if more else bench.network)
    return globals()[name]
