"""Every setting that a user can give has its effect."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import full

from keras_opt.core.progress import Progress
from keras_opt.export import LiteRTModel
from keras_opt.recipes import Recipe, training
from keras_opt.recipes.devices import check_devices
from keras_opt.recipes.images import Images, Prepared
from keras_opt.recipes.networks import build, shipped
from keras_opt.recipes.regularization import chosen
from keras_opt.recipes.run_folder import RunFolder
from keras_opt.recipes.training import Trainer


@pytest.fixture
def fits(monkeypatch):
    """The models that were trained, in order, as (model, first batch, dtype policy)."""
    seen = []
    real_fit = keras.Model.fit

    def fit(self, x, *arguments, **options):
        if isinstance(x, tf.data.Dataset):
            seen.append((self, next(iter(x)), keras.config.dtype_policy().name))
        return real_fit(self, x, *arguments, **options)

    monkeypatch.setattr(keras.Model, "fit", fit)
    return seen


def loaded(result):
    return keras.models.load_model(result.folder / "model.keras", compile=False)


@pytest.mark.parametrize(("kind", "dtype"), [("dynamic", "float32"), ("float16", "float32"), ("float32", "float32")])
def test_each_kind_of_device_file(tiny_run, kind, dtype):
    result = tiny_run(quantize=kind, sparsity=0.0, image_size=20, epochs=1)
    file = LiteRTModel(result.folder / "model.tflite")
    assert (file.input.dtype, result.optimised.quantize) == (dtype, kind)
    floats = 4 * result.optimised.parameters
    share = {"dynamic": (0.2, 0.95), "float16": (0.45, 0.95), "float32": (1, 2)}[kind]
    assert share[0] < result.optimised.tflite_bytes / floats < share[1]
    assert kind in (result.folder / "report.html").read_text()


def test_no_baseline_trains_one_side(tiny_run, fits):
    result = tiny_run()
    assert len(fits) == 2
    assert result.plain is None
    assert set(result.histories) == {"optimised", "pruned"}
    assert result.optimised.seconds_to_plain_best is None
    assert not (result.folder / "plain.tflite").exists()


def test_sparsity_0_skips_pruning(tiny_run, fits):
    result = tiny_run(sparsity=0.0)
    assert len(fits) == 1
    assert result.optimised.pruned_test_accuracy is None
    assert "not asked for" in result.pruning


def test_pruning_that_costs_too_much_is_taken_back(tiny_run, monkeypatch):
    figures = iter([0.9, 0.5])
    monkeypatch.setattr(training, "accuracy", lambda *_: next(figures))
    result = tiny_run(max_accuracy_drop=0.1)
    assert "taken back: validation accuracy 0.9000 before, 0.5000 after" in result.pruning
    assert result.optimised.pruned_test_accuracy is None
    assert result.optimised.sparsity < 0.1


def test_mixed_precision_trains_in_float16_and_ships_float32(tiny_run, fits):
    before = keras.config.dtype_policy().name
    result = tiny_run(mixed_precision=True)
    assert [policy for _, _, policy in fits] == ["mixed_float16", "mixed_float16"]
    assert {layer.compute_dtype for layer in loaded(result).layers} == {"float32"}
    assert result.optimised.argmax_agreement > 0.5
    assert keras.config.dtype_policy().name == before


def test_class_weight_balanced_weighs_every_class_alike(fits, tmp_path):
    generator = np.random.default_rng(0)

    def images(counts):
        labels = np.repeat(np.arange(3), counts)
        return Images(generator.integers(0, 256, (len(labels), 16, 16, 3)).astype(np.uint8), labels)

    prepared = Prepared(images([10, 20, 30]), images([2, 2, 2]), lambda: None, ("a", "b", "c"), (), "noise")
    recipe = Recipe(class_weight="balanced", epochs=1, batch_size=60, augment="none", out=tmp_path / "run")
    with RunFolder(recipe, {}) as folder:
        folder.begin(recipe)
        Trainer(chosen(recipe, 60), prepared, Progress(quiet=True), folder).optimised()
    _, labels, weights = fits[0][1]
    sums = [float(np.sum(np.where(labels[:, number] == 1, weights, 0))) for number in range(3)]
    assert sums == pytest.approx([20, 20, 20])


def test_the_cpu_can_be_named(tiny_run):
    assert tiny_run(device="cpu", sparsity=0.0, epochs=1).recipe.device == "cpu"


@pytest.mark.parametrize("device", ["gpu:3", "tpu", "cpu:7", ""])
def test_a_device_that_is_not_there_is_named_with_those_that_are(device):
    with pytest.raises(ValueError, match=r"argument `device` must be one of cpu:0.*Received: device="):
        check_devices(Recipe(device=device))


def test_the_target_ends_the_training(tiny_run):
    result = tiny_run(epochs=9, target_accuracy=0.0, sparsity=0.0)
    assert result.optimised.epochs == 1
    assert "val_accuracy" in result.optimised.stopped_because


def test_both_sides_are_fed_the_same_batches(tiny_run, fits):
    tiny_run(baseline=True, sparsity=0.0, epochs=1)
    (_, plain, _), (_, optimised, _) = fits
    np.testing.assert_array_equal(plain[0], optimised[0])
    np.testing.assert_array_equal(plain[1], optimised[1])


def test_the_plain_side_sees_the_images_as_they_are(tiny_run, fits):
    tiny_run(baseline=True, augment="cut_mix", epochs=1, quantize="float32")
    (_, plain, _), *others = fits
    assert len(others) == 2
    assert set(np.unique(plain[1])) == {0.0, 1.0}
    assert all(len(np.unique(batch[1])) > 2 for _, batch, _ in others)


def test_both_sides_have_the_same_layers_but_for_the_norm():
    recipe = Recipe.demo()
    plain, optimised = (build(recipe, (28, 28, 1), 10, norm=norm) for norm in ("none", "batch"))
    names = [layer.name for layer in optimised.layers if not isinstance(layer, keras.layers.BatchNormalization)]
    assert names == [layer.name for layer in plain.layers]
    assert [layer.filters for layer in plain.layers if isinstance(layer, keras.layers.Conv2D)] == [32, 64]


@pytest.mark.parametrize("pixels", [4, 9, 28, 65, *map(full, [7, 16, 64, 96, 224])])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_network_fits_every_size_and_ships_with_the_same_answers(pixels, norm):
    recipe = Recipe(image_size=pixels, dropout=0.5)
    trained = build(recipe, (pixels, pixels, 3), 3, norm=norm)
    model = shipped(trained, recipe, norm)
    x = np.random.default_rng(0).integers(0, 256, (2, pixels, pixels, 3)).astype(np.float32)
    np.testing.assert_allclose(model(x, training=False), trained(x, training=False), atol=1e-6)
    assert model.count_params() < 1_500_000


def test_a_run_puts_logs_and_precision_back(tiny_run):
    level = tf.get_logger().level
    tiny_run(sparsity=0.0, epochs=1)
    assert tf.get_logger().level == level
