"""`quantization_report`: its figures against NumPy, and the layer that a planted fault is in."""

import keras
import numpy as np
import pytest
from full_rows import full

from keras_opt.core.errors import InputError
from keras_opt.export import LiteRTModel, quantization_report, to_tflite
from keras_opt.export.model_file import names, pack, schema, unpack

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def branched():
    """A convolution with a norm, a branch that is added again, two dense layers, named as none of their kind is."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(inputs)
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.Add(name="join")([x, keras.layers.Conv2D(4, 1, activation="relu", name="branch")(x)])
    x = keras.layers.Dense(6, activation="relu", name="wide")(keras.layers.Flatten(name="flat")(x))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x))


@pytest.fixture(scope="module")
def file(branched, tmp_path_factory):
    return to_tflite(branched, tmp_path_factory.mktemp("report") / "int8.tflite", "int8", X).path


def test_every_layer_with_a_kernel_has_a_row(branched, file):
    report = quantization_report(branched, file, X)
    rows = {row.layer: row.operator for row in report.rows}
    assert rows == {
        "first": "CONV_2D",
        "branch": "CONV_2D",
        "join": "ADD",
        "flat": "RESHAPE",
        "wide": "FULLY_CONNECTED",
        "head": "SOFTMAX",
    }
    assert report.examples == 200
    own = [row.own_sqnr_db for row in report.rows]
    assert own == sorted(own)
    assert min(own) > 25
    assert (report.rows[-1].layer, own[-1]) == ("flat", np.inf)  # a reshape adds nothing
    assert all(0 <= row.mean_lsb <= row.max_lsb < 3 for row in report.rows)


def test_the_error_of_the_output_is_that_of_the_outputs(branched, file):
    """`sqnr_db` of the last layer from the answers alone; the kernels of both differ by a step here and there."""
    rows = {row.layer: row for row in quantization_report(branched, file, X[:50]).rows}
    wanted = branched.predict(X[:50], verbose=0).astype(np.float64)
    error = LiteRTModel(file).predict(X[:50]) - wanted
    assert rows["head"].sqnr_db == pytest.approx(10 * np.log10((wanted**2).sum() / (error**2).sum()), abs=1)


def damaged(file, number):
    """`file` with the kernel of one of its convolutions turned round."""
    tree = unpack(file.read_bytes())
    kinds = names(schema().BuiltinOperator)
    graph = tree.subgraphs[0]
    kernels = [
        graph.tensors[each.inputs[1]]
        for each in graph.operators
        if kinds[tree.operatorCodes[each.opcodeIndex].builtinCode] == "CONV_2D"
    ]
    buffer = tree.buffers[kernels[number].buffer]
    buffer.data = np.asarray(buffer.data)[::-1].copy()
    return pack(tree)


@pytest.mark.parametrize(("number", "layer"), [full(0, "first"), (1, "branch")])
def test_the_worst_layer_is_the_one_with_the_fault_and_not_those_behind_it(number, layer, branched, file, tmp_path):
    fault = tmp_path / "fault.tflite"
    fault.write_bytes(damaged(file, number))
    worst, *others = quantization_report(branched, fault, X[:50]).rows
    assert worst.layer == layer
    assert worst.own_sqnr_db < 10 < 20 < min(row.own_sqnr_db for row in others)
    rows = {row.layer: row for row in others}
    assert rows["wide"].sqnr_db < 15 < rows["wide"].own_sqnr_db


@pytest.mark.full
def test_int16_activations_add_less(branched, file, tmp_path):
    wide = to_tflite(branched, tmp_path / "int16.tflite", "int16x8", X).path
    narrow, wide = (quantization_report(branched, path, X[:50]) for path in (file, wide))
    by_layer = {row.layer: row.own_sqnr_db for row in narrow.rows}
    assert all(row.own_sqnr_db > by_layer[row.layer] for row in wide.rows if np.isfinite(row.own_sqnr_db))


def test_the_table_and_the_plot(branched, file):
    report = quantization_report(branched, file, X[:10])
    first, heading, *lines = str(report).splitlines()
    assert first == "int8.tflite, 10 examples, the worst layer first"
    assert heading.replace("  ", " ").endswith("own SQNR dB SQNR dB mean LSB max LSB")
    assert [line.split()[0] for line in lines] == [row.layer for row in report.rows]
    ax = report.plot()
    assert [text.get_text() for text in ax.get_yticklabels()] == [row.layer for row in report.rows][::-1]
    ax.figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    assert not legend.overlaps(ax.get_window_extent())  # no bar is hidden
    assert not legend.overlaps(ax.xaxis.label.get_window_extent())
    assert ax.figure.bbox.y0 <= legend.y0


def test_layers_with_numbers_in_their_names_keep_them(tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, name=name) for name in ("dense", "dense_1", "dense_1_1", "dense_2_3")]
    model = keras.Sequential([keras.Input((5,)), *layers])
    x = RNG.normal(size=(100, 5)).astype("float32")
    path = to_tflite(model, tmp_path / "model.tflite", "int8", x).path
    assert {row.layer for row in quantization_report(model, path, x).rows} == {layer.name for layer in layers}


def test_a_model_that_is_quantized_already_is_refused(file):
    layer = keras.layers.Dense(2)
    layer.keeps_quantized_ranges = True  # what says so of a layer of `quantize_aware`
    with pytest.raises(InputError, match="argument `model` must be a float model"):
        quantization_report(keras.Sequential([keras.Input((4,)), layer]), file, X)


def test_what_does_not_fit(branched, file, tmp_path):
    with pytest.raises(InputError, match="quantization_report: there is no file"):
        quantization_report(branched, tmp_path / "none.tflite", X)
    with pytest.raises(InputError, match=r"argument `data` must be an array of shape \(rows, 8, 8, 3\)"):
        quantization_report(branched, file, X[:, :4])
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(InputError, match="has other operators than a file of `model`"):
        quantization_report(other, file, X)
    path = to_tflite(branched, tmp_path / "float32.tflite").path
    with pytest.raises(InputError, match="does not compute in integers throughout"):
        quantization_report(branched, path, X)
