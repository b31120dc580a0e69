"""Time one forward pass of MobileNet v1 the way others run it; prints a line of JSON.

``python benchmarks/peers.py NAME BATCH.npy NETWORK`` runs on the very pictures that we
embed. NETWORK is the ``.tflite`` file for LiteRT and OpenVINO, the SavedModel folder
for TensorFlow Hub, and an ``.npz`` of kernels and biases for ONNX Runtime. The last
two engines run in an environment of their own (`work.make_peers`).
"""

import json
import os
import sys
import time

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BATCH = 32  # views in one pass
PASSES = 3  # over all views, of which the fastest counts; the first warms up
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def load_keras(_):
    """Return Keras's `predict`; random weights change no time."""
    import keras

    network = keras.applications.MobileNet(
        weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3)
    )
    return lambda x: network.predict(x, batch_size=BATCH, verbose=0)


def load_tfhub(folder):
    """Return what `hub.load` gives."""
    import tensorflow as tf
    import tensorflow_hub

    network = tensorflow_hub.load(folder)
    return lambda x: network(tf.constant(x)).numpy()


def load_litert(file):
    """Return LiteRT's interpreter with all cores in each pass."""
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(file, num_threads=len(os.sched_getaffinity(0)))
    index = network.get_input_details()[0]["index"]
    network.resize_tensor_input(index, (BATCH, 224, 224, 3))
    network.allocate_tensors()

    def run(x):
        network.set_tensor(index, x)
        network.invoke()
        return network.get_tensor(network.get_output_details()[0]["index"])

    return run


def load_openvino(file, precision="f32"):
    """Return OpenVINO as it is by default, but for the precision."""
    sys.modules["openvino_telemetry"] = None
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision}
    network = openvino.Core().compile_model(file, "CPU", settings)
    return lambda x: network([x])[0]


def load_onnxruntime(file):
    """Return ONNX Runtime on the same kernels and biases."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    arrays = np.load(file)
    layers = [(arrays[f"kernel{i}"], arrays[f"bias{i}"]) for i in range(27)]
    constants, nodes, name = [], [], "x"
    strides = [2, *(s for stride in STRIDES for s in (stride, 1))]
    for i, ((kernel, bias), stride) in enumerate(zip(layers, strides, strict=True)):
        depthwise = i % 2 == 1
        axes = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        weights = np.ascontiguousarray(kernel.transpose(axes))
        constants += [
            numpy_helper.from_array(weights, f"w{i}"),
            numpy_helper.from_array(bias, f"b{i}"),
        ]
        nodes.append(
            helper.make_node(
                "Conv",
                [name, f"w{i}", f"b{i}"],
                [f"c{i}"],
                auto_pad="SAME_UPPER",
                strides=[stride, stride],
                group=len(bias) if depthwise else 1,
            )
        )
        nodes.append(helper.make_node("Clip", [f"c{i}", "zero", "six"], [f"r{i}"]))
        name = f"r{i}"
    for bound, value in (("zero", 0), ("six", 6)):
        constants.append(numpy_helper.from_array(np.array(value, np.float32), bound))
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["y"]))
    shapes = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "mobilenet", shapes[:1], shapes[1:], constants)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    network = onnxruntime.InferenceSession(model.SerializeToString())
    return lambda x: network.run(None, {"x": 2 * x.transpose(0, 3, 1, 2) - 1})[0]


LOADERS = {
    "keras": load_keras,
    "tfhub": load_tfhub,
    "litert": load_litert,
    "openvino": load_openvino,
    "openvino_bf16": lambda file: load_openvino(file, "bf16"),
    "onnxruntime": load_onnxruntime,
}


def main():
    """Load, warm up, and print the seconds of a pass over all views."""
    name, batch, network = sys.argv[1:]
    views = np.load(batch)
    run = LOADERS[name](network)
    times = []
    for _ in range(1 + PASSES):
        start = time.perf_counter()
        found = [run(views[i : i + BATCH]) for i in range(0, len(views), BATCH)]
        times.append(time.perf_counter() - start)
    mean = float(np.mean([part.mean() for part in found]))
    print(json.dumps({"seconds": min(times[1:]), "mean": mean}))


if __name__ == "__main__":
    main()
