"""What `log_dir` gets, read back as TensorBoard reads it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_opt.callbacks import GradientMonitor

LAYERS = ("net/hidden", "net/head")


def fit(monitor, nan_from=None):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(28, 3)).astype("float32")
    if nan_from is not None:
        x[nan_from:] = np.nan
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(1, name="head")], name="net"
    )
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[monitor])


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def scalars(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.mark.parametrize("every", [1, 3])
def test_every_recorded_update_has_its_scalars(tmp_path, every):
    monitor = GradientMonitor(every=every, ratios=True, log_dir=tmp_path)
    fit(monitor)
    events, series = read(tmp_path), monitor.series()
    tags = {"grad_norm": "grad_norm", "update_ratio": "update_ratio"}
    tags |= {f"grad_norm/{layer}": layer for layer in LAYERS}
    tags |= {f"update_ratio/{layer}": f"update_ratio/{layer}" for layer in LAYERS}
    assert set(events.Tags()["scalars"]) == set(tags)
    assert events.Tags()["tensors"] == []
    for tag, name in tags.items():
        assert scalars(events, tag) == list(zip(series["step"].tolist(), series[name].tolist(), strict=True))


def test_without_layers_and_ratios_there_is_the_global_norm_alone(tmp_path):
    fit(GradientMonitor(per_layer=False, log_dir=str(tmp_path)))
    assert read(tmp_path).Tags()["scalars"] == ["grad_norm"]


def test_each_epoch_has_a_histogram_of_each_layer(tmp_path):
    fit(GradientMonitor(histograms=True, log_dir=tmp_path))
    events = read(tmp_path)
    for layer, elements in zip(LAYERS, (16, 5), strict=True):
        tag = f"gradients/{layer}"
        assert events.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"
        epochs = events.Tensors(tag)
        assert [event.step for event in epochs] == [6, 13]
        for event in epochs:
            buckets = tf.make_ndarray(event.tensor_proto)
            assert buckets.shape[1] == 3
            assert buckets[:, 2].sum() == 7 * elements


def test_values_that_are_not_finite_are_written_as_such_and_left_out_of_the_histogram(tmp_path):
    fit(GradientMonitor(histograms=True, log_dir=tmp_path, warn=False), nan_from=20)
    events = read(tmp_path)
    assert [np.isnan(value) for _, value in scalars(events, "grad_norm")] == [False] * 5 + [True] * 9
    first, second = (tf.make_ndarray(event.tensor_proto) for event in events.Tensors("gradients/net/hidden"))
    assert first[:, 2].sum() == 5 * 16
    assert second.shape == (0, 3)


def test_nothing_is_written_elsewhere_or_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(GradientMonitor())
    assert list(tmp_path.iterdir()) == []
    fit(GradientMonitor(histograms=True, log_dir="logs"))
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert len(list((tmp_path / "logs").iterdir())) == 1
