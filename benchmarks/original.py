"""Photos to a trained head the way of the original tool; prints one line of JSON.

What its `retrain.py` does: decode each JPEG in full, resize it bilinearly, run the
frozen TF1 graph on one picture at a time, keep each vector as a text file, then train
a softmax layer by gradient descent and read the text files of each batch anew. Its
evaluations on the way are left out, in its favour. With ``--upload`` it does what its
`label_image.py` does: load all this, and run it on one picture.

``python benchmarks/original.py PHOTOS --graph GRAPH.pb [--texts FOLDER] [--upload]``
"""

import argparse
import contextlib
import json
import os
import random
import time
from pathlib import Path
from types import ModuleType

import numpy as np

SIDE = 224
STEPS, BATCH_SIZE, LEARNING_RATE = 4000, 100, 0.01  # the tool's defaults
POOL = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"


def list_photos(folder: Path) -> dict[str, list[Path]]:
    """Return the photos of each class folder, both sorted."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return {path.name: sorted(path.glob("*.jpg")) for path in classes}


def import_tensorflow() -> ModuleType:
    """Import TensorFlow as TF1."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.compat.v1.disable_eager_execution()
    tf.compat.v1.set_random_seed(0)
    return tf.compat.v1


class Network:
    """The frozen graph, behind a graph that decodes one JPEG."""

    def __init__(self, tf: ModuleType, graph_file: Path) -> None:
        graph_def = tf.GraphDef()
        graph_def.ParseFromString(graph_file.read_bytes())
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
            self.content = tf.placeholder(tf.string)
            full = tf.image.decode_jpeg(self.content, channels=3)
            batch = tf.expand_dims(tf.cast(full, tf.float32), 0)
            small = tf.image.resize_bilinear(batch, [SIDE, SIDE])
            self.pixels = (small - 127.5) / 127.5
        self.session = tf.Session(graph=graph)

    def embed(self, path: Path) -> np.ndarray:
        """Return one photo's 1,024 numbers: decode, then run, in two calls."""
        pixels = self.session.run(self.pixels, {self.content: path.read_bytes()})
        return self.session.run(POOL, {"input:0": pixels}).ravel()


def name_text(texts: Path, photo: Path) -> Path:
    """Return where a photo's numbers stand."""
    return texts / photo.parent.name / f"{photo.name}.txt"


def read_text(path: Path) -> list[float]:
    """Read one vector."""
    return [float(number) for number in path.read_text().split(",")]


def write_bottlenecks(network: Network, photos: list[Path], texts: Path) -> None:
    """Write each photo's numbers into a text file, separated by commas."""
    for photo in photos:
        path = name_text(texts, photo)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(str(value) for value in network.embed(photo)))


def read_batch(
    classes: dict[str, list[Path]], texts: Path, rng: random.Random
) -> tuple[list[list[float]], list[int]]:
    """Read a batch's text files: a class by chance, then one of its photos."""
    lists, vectors, labels = list(classes.values()), [], []
    for _ in range(BATCH_SIZE):
        label = rng.randrange(len(lists))
        vectors.append(read_text(name_text(texts, rng.choice(lists[label]))))
        labels.append(label)
    return vectors, labels


def train(
    tf: ModuleType, classes: dict[str, list[Path]], texts: Path, steps: int
) -> dict[str, float]:
    """Train the last layer; return the seconds."""
    with tf.Graph().as_default(), tf.Session() as session:
        X = tf.placeholder(tf.float32, [None, 1024])
        y = tf.placeholder(tf.int64, [None])
        start = tf.truncated_normal([1024, len(classes)], stddev=0.001, seed=0)
        weights = tf.Variable(start)
        biases = tf.Variable(tf.zeros([len(classes)]))
        logits = tf.matmul(X, weights) + biases
        loss = tf.losses.sparse_softmax_cross_entropy(y, logits)
        step = tf.train.GradientDescentOptimizer(LEARNING_RATE).minimize(loss)
        session.run(tf.global_variables_initializer())
        rng, begin = random.Random(0), time.perf_counter()
        for _ in range(steps):
            vectors, labels = read_batch(classes, texts, rng)
            session.run(step, {X: vectors, y: labels})
        seconds = time.perf_counter() - begin
    return {"training": seconds}


def main() -> None:
    """Do it and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="class folders, or one photo")
    parser.add_argument("--graph", type=Path, required=True, help="frozen graph, .pb")
    parser.add_argument("--texts", type=Path, help="where the text files go")
    parser.add_argument("--steps", type=int, default=STEPS, help="0: features only")
    parser.add_argument("--upload", action="store_true", help="embed one photo")
    args = parser.parse_args()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        tf = import_tensorflow()
    network = Network(tf, args.graph)
    if args.upload:
        print(json.dumps({"n_features": len(network.embed(args.photos))}))
        return
    if args.texts is None:
        parser.error("--texts is needed: a folder for the text files")
    classes = list_photos(args.photos)
    photos = [path for paths in classes.values() for path in paths]
    start = time.perf_counter()
    write_bottlenecks(network, photos, args.texts)
    found = {"bottlenecks": time.perf_counter() - start}
    if args.steps:
        found |= train(tf, classes, args.texts, args.steps)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
