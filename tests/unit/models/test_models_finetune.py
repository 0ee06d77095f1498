"""Networks of keras.applications with their scaling inside and a head of one's own."""

import inspect
import re
import socket
import threading
import time
import urllib.request
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import keras
import numpy as np
import pytest
from builders import kinds, norms, with_random_statistics

from keras_opt.callbacks import GradualUnfreezing
from keras_opt.core.errors import InputError
from keras_opt.export import to_tflite
from keras_opt.models import finetune, fold_batch_norm, pretrained_weights
from keras_opt.models.finetune import _CAFFE, _SCALINGS, BACKBONES

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
SMALL = {"MobileNetV2": {"alpha": 0.35}, "MobileNetV3Small": {"alpha": 0.75}}
LARGE = ("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "MobileNet", "NASNetMobile")
LARGE = {name: {} for name in (*LARGE, "ResNet50", "ResNet50V2", "VGG16")}


def module_of(network):
    """The public module of a network, which has its `preprocess_input`."""
    return getattr(keras.applications, inspect.getmodule(getattr(keras.applications, network)).__name__.split(".")[-1])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A MobileNetV2 with statistics far from the identity, and the file of its weights."""
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35)
    path = tmp_path_factory.mktemp("weights") / "base.weights.h5"
    with_random_statistics(base).save_weights(path)
    return base, path


def features(model, x, training=False):
    return np.asarray(keras.Model(model.inputs, model.get_layer("head_pool").output)(x, training=training))


def test_every_network_of_keras_applications_is_known():
    assert set(BACKBONES) == {name for name in dir(keras.applications) if name[0].isupper()}


@pytest.mark.parametrize("network", BACKBONES)
def test_the_scaling_is_that_of_keras(network):
    scaling = next(settings for start, settings in _SCALINGS.items() if re.match(start, network))
    ours = PIXELS if scaling is None else np.asarray(keras.layers.Rescaling(**scaling)(PIXELS))
    if scaling is _CAFFE:  # the first kernel is turned round instead
        ours = ours[..., ::-1]
    np.testing.assert_allclose(ours, module_of(network).preprocess_input(PIXELS.copy()), rtol=1e-5, atol=2e-5)


def test_raw_pixels_give_the_features_of_the_backbone(backbone):
    base, path = backbone
    model = finetune("MobileNetV2", (32, 32, 3), 5, weights=path, alpha=0.35)
    scaled = keras.applications.mobilenet_v2.preprocess_input(PIXELS.copy())
    expected = np.asarray(base(scaled, training=False)).mean((1, 2))
    np.testing.assert_allclose(features(model, PIXELS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.full
def test_every_family_gives_the_features_of_its_backbone_and_folds(tmp_path):
    for network, arguments in {**SMALL, **LARGE}.items():
        build = getattr(keras.applications, network)
        base = build(include_top=False, weights=None, input_shape=(32, 32, 3), **arguments)
        if network != "DenseNet121":  # its sums would overflow
            with_random_statistics(base)
        base.save_weights(tmp_path / "base.weights.h5")
        model = finetune(build, (32, 32, 3), 5, weights=tmp_path / "base.weights.h5", **arguments)
        scaled = module_of(network).preprocess_input(PIXELS.copy())
        expected = np.asarray(base(scaled, training=False)).mean((1, 2))
        found = features(model, PIXELS)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), network
        again = fold_batch_norm(model, unproven="keep")
        np.testing.assert_allclose(again(PIXELS, training=False), model(PIXELS, training=False), atol=1e-5)


def test_blue_first_weights_see_the_same_with_red_first(tmp_path):
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    base.save_weights(tmp_path / "base.weights.h5")
    model = finetune("VGG16", (32, 32, 3), 2, weights=tmp_path / "base.weights.h5")
    scaled = keras.applications.vgg16.preprocess_input(PIXELS.copy())
    expected = np.asarray(base(scaled)).mean((1, 2))
    np.testing.assert_allclose(features(model, PIXELS), expected, atol=1e-5 * np.abs(expected).max())
    assert not {"Lambda", "GetItem"} & set(kinds(model))


def test_only_the_head_trains_and_the_statistics_stay(backbone):
    model = finetune("MobileNetV2", (32, 32, 3), 5, weights=backbone[1], alpha=0.35)
    assert [weight.path for weight in model.trainable_weights] == ["head/kernel", "head/bias"]
    before = [np.array(norm.moving_mean) for norm in norms(model)]
    model(PIXELS, training=True)
    for statistics, norm in zip(before, norms(model), strict=True):
        np.testing.assert_array_equal(statistics, norm.moving_mean)


def test_in_keras_the_statistics_move_where_its_guide_keeps_them():
    inputs, norm = keras.Input((4,)), keras.layers.BatchNormalization()
    base = keras.Sequential([keras.Input((4,)), norm])
    model = keras.Model(inputs, base(inputs, training=False))
    model(np.ones((8, 4)), training=True)
    assert np.all(np.array(norm.moving_mean) > 0)


def test_gradual_unfreezing_finds_head_blocks_and_all(backbone):
    model = finetune("MobileNetV2", (32, 32, 3), 5, weights=backbone[1], alpha=0.35)
    model.compile("sgd", "sparse_categorical_crossentropy")
    unfreeze = GradualUnfreezing({0: "head", 1: "block_16", 2: "all"}, freeze_batch_norm=True)
    unfreeze.set_model(model)
    assert [len(variables) for variables in unfreeze._variables] == [2, 3, 52 - 3]  # of each layer its kernel
    unfreeze = GradualUnfreezing({0: "blok_16*"})
    with pytest.raises(InputError, match=r"Of the 105 with weights the closest are block_16_expand(, \w+){9}\.$"):
        unfreeze.set_model(model)


def test_without_weights_everything_trains():
    model = finetune("MobileNetV2", (32, 32, 3), 1, None, classifier_activation="sigmoid", alpha=0.35, dropout=0.2)
    assert len(model.trainable_weights) == 158
    assert [layer.name for layer in model.layers[-3:]] == ["head_pool", "head_dropout", "head"]
    mean = np.array(norms(model)[0].moving_mean)
    model(PIXELS, training=True)
    assert not np.array_equal(mean, norms(model)[0].moving_mean)


def test_grey_images_are_repeated_and_preprocessing_comes_first(backbone):
    model = finetune(
        keras.applications.MobileNetV2, (32, 32, 1), 5, weights=backbone[1], alpha=0.35,
        preprocessing=keras.layers.RandomFlip(), name="mine",
    )  # fmt: skip
    assert kinds(model)[:4] == ["InputLayer", "RandomFlip", "Concatenate", "Rescaling"]
    assert model.name == "mine"
    grey = PIXELS[..., :1]
    scaled = keras.applications.mobilenet_v2.preprocess_input(np.repeat(grey, 3, -1))
    expected = np.asarray(backbone[0](scaled, training=False)).mean((1, 2))
    np.testing.assert_allclose(features(model, grey), expected, rtol=1e-5, atol=1e-6)


def test_the_file_opens_in_plain_keras(backbone, tmp_path):
    model = finetune("MobileNetV2", (32, 32, 3), 5, weights=backbone[1], alpha=0.35)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(PIXELS, training=True), model(PIXELS, training=False), rtol=1e-5)


@pytest.mark.full
def test_it_becomes_int8(backbone, tmp_path):
    model = finetune("MobileNetV2", (32, 32, 3), 5, weights=backbone[1], alpha=0.35)
    rows = np.random.default_rng(1).integers(0, 256, (100, 32, 32, 3))
    assert to_tflite(model, tmp_path / "model.tflite", "int8", rows).input.dtype == "int8"


# --- weights that are not here ---------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **settings):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_weights_out_of_reach_are_one_line_that_says_what_to_fetch(offline, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        finetune("MobileNetV2", (96, 96, 3), 5, alpha=0.35)
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5"
    origin = f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{name}"
    assert str(error.value) == (
        "finetune: the ImageNet weights of MobileNetV2 are not here and cannot be fetched (storage.googleapis.com does "
        f"not answer). Fetch {origin} and put it into {tmp_path / 'models'}, or give `weights` a file of your own, or "
        "None for random weights (with keras-opt train: --weights FILE or --weights none)."
    )


def test_keras_talks_of_no_size_of_its_own(offline, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with warnings.catch_warnings(action="error"), pytest.raises(InputError, match=r"_224_no_top\.h5"):
        finetune("MobileNetV2", (100, 100, 3), 5)


def get_file():
    return inspect.getmodule(keras.utils.get_file).get_file


def test_a_file_that_is_there_needs_no_network(offline, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "w.h5").write_bytes(b"weights")
    before = get_file()
    with pretrained_weights.named_downloads("finetune", "Net"):
        path = get_file()("w.h5", "https://example.org/w.h5", cache_dir=tmp_path, cache_subdir="models")
    assert path == str(tmp_path / "models" / "w.h5")
    assert get_file() is before is keras.utils.get_file


def test_a_download_that_fails_is_the_same_line(monkeypatch, tmp_path):
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *arguments):
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    origin = f"http://127.0.0.1:{server.server_port}/w.h5"
    with (
        pretrained_weights.named_downloads("finetune", "Net"),
        pytest.raises(InputError, match=rf"fetched \(URL fetch failure on {origin}: 404 -- Not Found\). Fetch http"),
    ):
        get_file()("w.h5", origin, cache_dir=tmp_path, cache_subdir="models")
    server.shutdown()


def test_a_network_that_lets_nothing_through_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(pretrained_weights, "_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        assert not pretrained_weights._answers(f"http://127.0.0.1:{silent.getsockname()[1]}/w.h5")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backbone": "MobileNetV4"},
            "argument `backbone` must be a network of keras.applications.* Did you mean",
        ),
        ({"backbone": 3}, "argument `backbone` must be a network"),
        ({"backbone": keras.layers.Dense}, "argument `backbone` must be a network"),
        (
            {"input_shape": (32, 32)},
            r"argument `input_shape` must be \(height, width, channels\).*give their channels too",
        ),
        (
            {"input_shape": 160},
            r"argument `input_shape` must be \(height, width, channels\). Received: input_shape=160. Give for example",
        ),
        ({"input_shape": (32, 32, 4)}, "argument `input_shape` must be of 3 channels, or of 1"),
        ({"input_shape": (8, 8, 3)}, "MobileNetV2 cannot be built with these arguments: Input size must be at least"),
        ({"classes": 1}, "argument `classes` must be at least 2 under a softmax"),
        ({"weights": "nowhere.h5"}, 'argument `weights` must be "imagenet", a file or None'),
        ({"weights": 3}, "argument `weights` must be a str or a pathlib.Path"),
        ({"dropout": 1}, "argument `dropout` must be a fraction"),
        ({"dropout": [0.1, 0.2]}, "argument `dropout` must be a fraction"),
        ({"pooling": "avg"}, "MobileNetV2 cannot be built with these arguments: .*'pooling'"),
        ({"preprocessing": "scale"}, "argument `preprocessing` must be a Keras layer or a list of them"),
        ({"classifier_activation": "max"}, "argument `classifier_activation` must be the name"),
        ({"beta": 1}, "MobileNetV2 cannot be built with these arguments: .*beta"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises((TypeError, ValueError), match=f"finetune: {message}"):
        finetune(**{"backbone": "MobileNetV2", "input_shape": (32, 32, 3), "classes": 2, "weights": None, **change})


@pytest.mark.parametrize(
    "layer",
    [keras.layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6]), keras.layers.Conv2D(3, 1)],
    ids=["Normalization", "Conv2D"],
)
def test_a_layer_that_would_get_the_weights_of_the_backbone_is_refused(layer, backbone):
    arguments = {"preprocessing": [keras.layers.RandomFlip(), layer], "alpha": 0.35}
    message = rf"finetune: argument `preprocessing` must be layers without weights.* Received: .*\['{layer.name}'\]\. "
    with pytest.raises(InputError, match=message + "In place of a Normalization take Rescaling"):
        finetune("MobileNetV2", (32, 32, 3), 5, weights=backbone[1], **arguments)


def test_random_kernels_are_not_turned_round():
    adapter = keras.layers.Conv2D(3, 1)
    adapter.build((None, 32, 32, 3))
    kernel = np.array(adapter.kernel)
    finetune("VGG16", (32, 32, 3), 2, None, preprocessing=adapter)
    np.testing.assert_array_equal(adapter.kernel, kernel)


def test_a_file_of_something_else_is_refused(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(InputError, match="finetune: MobileNetV2 cannot be built with these arguments"):
        finetune("MobileNetV2", (32, 32, 3), 2, weights=tmp_path / "other.weights.h5", alpha=0.35)
