"""What runs a network: LiteRT in float32, OpenVINO in bfloat16, TensorFlow.

Each engine has ``run``, from float32 pictures (n, h, w, 3) in [0, 1] to vectors
(n, n_features) and feature maps (n, h', w', n_map), or None where ``n_map`` is 0. The
bits of an answer depend neither on the batch nor on the number of threads. TensorFlow
is imported here and nowhere else, without what it prints.
"""

import contextlib
import copy
import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nebula_utils.config import IMAGE_SIZE
from nebula_utils.errors import BackboneError, ModelError

log = logging.getLogger(__name__)

FLOAT32, FAST, TENSORFLOW = "float32", "fast", "tensorflow"
NAMES = (FLOAT32, FAST, TENSORFLOW)

Found = tuple[np.ndarray, np.ndarray | None]  # vectors and maps


def list_engines() -> tuple[str, ...]:
    """Return the engines there are here; "fast" is one if OpenVINO is installed."""
    is_there = importlib.util.find_spec("openvino") is not None
    return NAMES if is_there else (FLOAT32, TENSORFLOW)


def count_cores() -> int:
    """Return how many threads compute at once; `TF_NUM_INTRAOP_THREADS` decides."""
    chosen = os.environ.get("TF_NUM_INTRAOP_THREADS")
    if chosen:
        return int(chosen)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class Engine:
    """What runs a network, and how many features and channels of a map it gives."""

    title: str  # name, version and precision; part of every feature's key
    n_features: int
    n_map: int

    def run(self, images: np.ndarray, with_map: bool = True) -> Found:
        """Return the vectors of a batch, and its feature maps if there are any."""
        raise NotImplementedError

    def fork(self) -> "Engine":
        """Return an engine for one of several threads, which computes there alone."""
        return self


class LiteEngine(Engine):
    """LiteRT, in float32: starts in a tenth of a second, without TensorFlow.

    It reads a ``.tflite`` file, as `weights.convert_for_litert` writes it; a missing or
    damaged one is a ModelError. One interpreter a batch shape is kept, as changing the
    shape costs more than a forward pass. A lock makes calls from several threads wait.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        # XNNPACK's kernels depend on the processor, and it has no switch for that;
        # without it LiteRT computes as on a processor of another kind.
        self._is_plain = os.environ.get("NEBULA_LITERT_KERNELS") == "plain"
        self._start(count_cores())
        try:
            self._content = file.read_bytes()
        except OSError as error:
            raise ModelError(
                f"can't read {file} ({error.strerror}): run `make reproduce` first"
            ) from error
        outputs = self._make().get_output_details()
        self.n_features, self.n_map = _read_shapes(
            [list(map(int, output["shape_signature"])) for output in outputs], file
        )

    @property
    def title(self) -> str:  # type: ignore[override]  # slow, and seldom needed
        """Name, version and precision."""
        kernels = ", plain kernels" if self._is_plain else ""
        return f"LiteRT {_find_version('ai-edge-litert')} float32{kernels}"

    def _start(self, threads: int) -> None:
        self._threads = threads
        self._interpreters: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()

    def run(self, images: np.ndarray, with_map: bool = True) -> Found:
        """Return the vectors of a batch, and its feature maps if there are any."""
        with self._lock:
            if images.shape not in self._interpreters:
                self._interpreters[images.shape] = self._make(images.shape)
            interpreter = self._interpreters[images.shape]
            given = interpreter.get_input_details()[0]["index"]
            interpreter.set_tensor(given, images.astype(np.float32, copy=False))
            interpreter.invoke()
            outputs = interpreter.get_output_details()
            return _sort(
                interpreter.get_tensor(o["index"])
                for o in outputs
                if with_map or len(o["shape"]) == 2
            )

    def fork(self) -> "LiteEngine":
        """Return an engine with the same network for another thread."""
        other = copy.copy(self)
        other._start(1)
        return other

    def _make(self, shape: tuple[int, ...] | None = None) -> Any:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kernels = OpResolverType.AUTO
        if self._is_plain:
            kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            with silence_stderr():
                made = Interpreter(
                    model_content=self._content,
                    num_threads=self._threads,
                    experimental_op_resolver_type=kernels,
                )
                if shape:
                    given = made.get_input_details()[0]["index"]
                    made.resize_tensor_input(given, list(shape))
                    made.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{self._file} is damaged ({error}): run `make reproduce` again"
            ) from error
        return made


class OpenVinoEngine(Engine):
    """OpenVINO, in bfloat16, on a processor that has units for it.

    It reads the same file. The first two convolutions are computed in float32: there,
    differences between neighbouring pixels are taken, which bfloat16 would round away.
    Of 48 pictures the worst cosine to float32 is 0.995 with this and 0.970 without.
    """

    def __init__(self, file: Path) -> None:
        openvino = _import_openvino()
        cores = count_cores()
        threads = {"INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": cores}
        core = openvino.Core()
        self._stages = [
            core.compile_model(
                stage, "CPU", {**threads, "INFERENCE_PRECISION_HINT": precision}
            )
            for stage, precision in _cut_network(openvino, core.read_model(file))
        ]
        self._requests = threading.local()
        self.title = f"OpenVINO {_find_version('openvino')} bfloat16"
        shapes = [output.partial_shape for output in self._stages[-1].outputs]
        self.n_features, self.n_map = _read_shapes(
            [[d.get_length() if d.is_static else -1 for d in s] for s in shapes], file
        )

    def run(self, images: np.ndarray, with_map: bool = True) -> Found:
        """Return the vectors of a batch, and its feature maps if there are any."""
        if not hasattr(self._requests, "own"):
            self._requests.own = [s.create_infer_request() for s in self._stages]
        found = [np.ascontiguousarray(images, np.float32)]
        for request in self._requests.own:
            found = list(request.infer(found, share_inputs=True).values())
        return _sort(np.array(x) for x in found if with_map or x.ndim == 2)


def _cut_network(openvino: Any, model: Any) -> list[tuple[Any, str]]:
    """Cut a network behind the activation of its second convolution, if it has one."""
    seen = 0
    for node in model.get_ordered_ops():
        seen += "Convolution" in node.get_type_name()
        if seen == 2 and node.get_type_name() in ("Clamp", "Relu"):
            break
    else:
        return [(model, "bf16")]
    output = node.output(0)
    between = openvino.opset8.parameter(output.get_partial_shape(), np.float32)
    for reader in output.get_target_inputs():
        reader.replace_source_output(between.output(0))
    first = openvino.Model([output], model.get_parameters(), "first")
    rest = openvino.Model(model.get_results(), [between], "rest")
    return [(first, "f32"), (rest, "bf16")]


class TensorFlowEngine(Engine):
    """TensorFlow, in float32: runs whatever SavedModel TensorFlow Hub offers."""

    def __init__(self, folder: Path) -> None:
        self._module = load_module(folder)
        self.title = f"TensorFlow {import_tensorflow().__version__} float32"
        found = self.run(np.zeros((2, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32))
        shapes = [list(array.shape) for array in found if array is not None]
        self.n_features, self.n_map = _read_shapes(shapes, folder)

    def run(self, images: np.ndarray, with_map: bool = True) -> Found:
        """Return the vectors of a batch, and its feature maps if there are any."""
        tf = import_tensorflow()
        # Alone, a picture would get other last bits than in company.
        batch = np.repeat(images, 2, axis=0) if len(images) == 1 else images
        try:
            given = tf.constant(batch, tf.float32)
            if not hasattr(self._module, "vector_and_map"):
                return self._module(given).numpy()[: len(images)], None
            found = self._module.vector_and_map(given)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise BackboneError(
                f"the network can't embed pictures of shape {images.shape[1:]}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        n = len(images)
        maps = found["map"].numpy()[:n] if with_map else None
        return found["vector"].numpy()[:n], maps


def choose_engine(file: Path, wanted: str) -> Engine:
    """Return what runs a ``.tflite`` file best on this processor.

    ``"fast"`` is OpenVINO where the processor has bfloat16 units (AVX512_BF16, AMX),
    which is several times faster and differs in the third decimal; elsewhere it is
    LiteRT, as for ``"float32"``.

    Raises
    ------
    BackboneError
        If the fast engine is wanted but not installed.
    """
    if wanted == FAST:
        core = _import_openvino().Core()
        if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return OpenVinoEngine(file)
        log.warning("this processor has no bfloat16 units: LiteRT runs in float32")
    return LiteEngine(file)


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere while the block runs.

    TensorFlow's C++ side writes a line with time and process number to the descriptor
    itself when it is imported, whatever ``TF_CPP_MIN_LOG_LEVEL`` says; in a notebook
    such a line would differ in every run.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def import_tensorflow() -> ModuleType:
    """Import TensorFlow, with operations that give equal bits twice on one machine."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silence_stderr():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    # "Assets written to: /tmp/…" would stand in a notebook's output.
    tf.get_logger().setLevel("ERROR")
    return tf


def import_tensorflow_hub() -> ModuleType:
    """Import TensorFlow Hub (it imports TensorFlow and warns on the way)."""
    import_tensorflow()
    with silence_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources is deprecated; we pin it
        import tensorflow_hub
    return tensorflow_hub


def load_module(folder: Path) -> Any:
    """Load a SavedModel folder through TensorFlow Hub, or raise a BackboneError."""
    hub, tf = import_tensorflow_hub(), import_tensorflow()
    try:
        return hub.load(str(folder))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise BackboneError(
            f"{folder} is not a SavedModel that can be loaded: {error}; "
            "delete the folder and try again"
        ) from error


def _import_openvino() -> Any:
    # What can't be imported can send nothing; OpenVINO has a stub for it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise BackboneError(
            f"the fast engine needs OpenVINO ({error}): "
            "pip install 'nebula-utils[fast]', or leave --engine away"
        ) from None
    return openvino


def _find_version(package: str) -> str:
    from importlib import metadata  # slow, and not needed to classify

    return metadata.version(package)


def _read_shapes(shapes: list[list[int]], source: Path) -> tuple[int, int]:
    """Return the lengths of a vector and of a cell of the map (0: no map)."""
    lengths = {len(shape): shape[-1] for shape in shapes}
    if 2 not in lengths:
        raise BackboneError(
            f"{source} gives arrays of shape {shapes}, not one vector a picture: "
            "choose an 'image feature vector' model"
        )
    return lengths[2], lengths.get(4, 0)


def _sort(outputs: Iterable[np.ndarray]) -> Found:
    """Tell vectors and maps apart, whatever their order."""
    found = {array.ndim: array for array in outputs}
    return found[2], found.get(4)
