"""distill: what the student is told, and that it is told it once."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import full
from keras import layers

from keras_opt.callbacks import ModelCheckpoint
from keras_opt.compression import ConstantSparsity, PruneLowMagnitude, cache_teacher, distill, quantize_aware, sparsity
from keras_opt.compression.distillation.soft_targets import SoftTargets, as_logits, output_kinds
from keras_opt.core.errors import InputError
from keras_opt.ensemble import PredictionEnsemble

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
Y = RNG.integers(0, 3, 24)


def network(units=8, activation="softmax", outputs=3, norm=False, l2=0.0):
    body = [layers.Dense(units, "relu", name="body", kernel_regularizer=keras.regularizers.L2(l2) if l2 else None)]
    body += [layers.BatchNormalization(name="norm")] if norm else []
    return keras.Sequential([keras.Input((4,)), *body, layers.Dense(outputs, activation, name="head")])


def compiled(student, teacher, rate=0.1, loss="sparse_categorical_crossentropy", **settings):
    model = distill(student, teacher, **settings)
    model.compile(
        keras.optimizers.SGD(rate), loss, metrics=[] if loss != "sparse_categorical_crossentropy" else ["acc"]
    )
    return model


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def divergence(p, q):
    return (p * np.log(p / q)).sum(-1)


def test_soft_targets_are_hinton_s_where_those_of_keras_by_default_are_not():
    teacher, student = np.float32([[5, 1, -2], [0, 3, 1]]), np.float32([[1, 2, 0], [1, 1, 1]])
    expected = 16 * divergence(softmax(teacher / 4), softmax(student / 4)).mean()
    np.testing.assert_allclose(SoftTargets("classification", 4.0)(teacher, student), expected, rtol=1e-5)
    of_keras = float(keras.distillation.LogitsDistillation(temperature=4.0).compute_loss(teacher, student))
    assert abs(of_keras / expected - 1) > 0.3, "Keras takes the softmax now: say so in distill's docstring"


def test_soft_targets_of_labels_and_of_values():
    teacher, student = np.float32([[2, -1]]), np.float32([[0, 1]])
    p, q = (1 / (1 + np.exp(-each / 2)) for each in (teacher, student))
    expected = 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    np.testing.assert_allclose(SoftTargets("multi_label", 2.0)(teacher, student), expected, rtol=1e-5)
    np.testing.assert_allclose(SoftTargets("regression", 2.0)(teacher, student), 4.0, rtol=1e-6)


def test_the_logits_behind_probabilities():
    logits = np.float32([[3, -1, 0.5], [0, 0, 9]])
    found = np.asarray(as_logits(softmax(logits), "softmax"))
    np.testing.assert_allclose(found - found[:, :1], logits - logits[:, :1], atol=1e-3)
    np.testing.assert_allclose(as_logits(1 / (1 + np.exp(-logits)), "sigmoid"), logits, atol=1e-2)
    assert np.asarray(as_logits(logits.astype("float16"), "linear")).dtype == np.float32


@pytest.mark.parametrize("weights", [full(None, id="alone"), pytest.param(np.linspace(0, 2, 24), id="sample_weight")])
def test_the_loss_of_a_step_is_the_formula(weights):
    student, teacher = network(l2=0.1), network(16)
    told, said = teacher.predict(X, verbose=0), student.predict(X, verbose=0)
    rows = np.ones(24) if weights is None else weights
    hard = (rows * -np.log(said[np.arange(24), Y])).mean()
    soft = 9 * (rows * divergence(softmax(np.log(told) / 3), softmax(np.log(said) / 3))).mean()
    penalty = 0.1 * (student.get_layer("body").get_weights()[0] ** 2).sum()
    model = compiled(student, teacher, student_loss_weight=0.2)
    logs = model.fit(X, Y, batch_size=24, sample_weight=weights, verbose=0).history
    np.testing.assert_allclose(logs["student_loss"], hard, rtol=1e-4)
    np.testing.assert_allclose(logs["distillation_loss"], soft, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], 0.2 * hard + 0.8 * soft + penalty, rtol=1e-4)


def test_one_pass_of_the_student_a_step_and_none_of_the_teacher_in_training_mode():
    student, teacher = network(norm=True), network(16, norm=True)
    before = [weight.copy() for weight in teacher.get_weights()]
    model = compiled(student, teacher, rate=0.0, features={"norm": "norm"})
    model.fit(X, Y, batch_size=24, verbose=0)
    mean = student.get_layer("body")(X).numpy().mean(0)
    np.testing.assert_allclose(student.get_layer("norm").moving_mean, 0.01 * mean, rtol=1e-4, atol=1e-7)
    assert teacher.trainable
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not {id(weight) for weight in model.weights} & {id(weight) for weight in teacher.weights}


def test_validation_reads_the_labels_alone():
    student = network()
    model = compiled(student, network(16))
    logs = model.fit(X, Y, validation_data=(X, Y), verbose=0).history
    assert set(logs) == {"loss", "student_loss", "distillation_loss", "acc", "val_loss", "val_acc"}
    said = student.predict(X, verbose=0)
    np.testing.assert_allclose(logs["val_loss"], -np.log(said[np.arange(24), Y]).mean(), rtol=1e-4)
    np.testing.assert_array_equal(model.predict(X, verbose=0), said)


def test_features_come_closer_through_a_projection():
    keras.utils.set_random_seed(0)
    model = compiled(network(), network(16), features={"body": "body"}, student_loss_weight=0.0)
    losses = model.fit(X, Y, batch_size=24, epochs=30, verbose=0).history["distillation_loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert sorted(weight.name for weight in model.hints[0].weights) == ["offset", "projection"]


@pytest.mark.parametrize("rank", [1, full(2)])
def test_features_of_another_size_are_resized(rank):
    shape, convolution = (8,) * rank + (1,), {1: layers.Conv1D, 2: layers.Conv2D}[rank]
    pooling = {1: layers.GlobalAveragePooling1D, 2: layers.GlobalAveragePooling2D}[rank]

    def model(strides):
        maps = convolution(3, 3, strides, "same", name="maps")
        return keras.Sequential([keras.Input(shape), maps, pooling(), layers.Dense(2, "softmax")])

    distilling = compiled(model(2), model(1), features={"maps": "maps"})
    logs = distilling.fit(np.ones((4, *shape)), np.zeros(4), verbose=0).history
    assert np.isfinite(logs["distillation_loss"]).all()
    assert not distilling.hints[0].weights


def test_cached_logits_train_as_the_teacher_does():
    teacher = network(16)
    weights, students = None, []
    for cached in (False, True):
        student = network()
        student.set_weights(weights or student.get_weights())
        weights = weights or student.get_weights()
        model = compiled(student, teacher)
        if cached:
            batches = cache_teacher(teacher, X, Y, batch_size=24, seed=0, verbose=0)
            model.fit(batches, shuffle=False, verbose=0)
        else:
            model.fit(X, Y, batch_size=24, verbose=0)
        students.append(student.get_weights())
    for first, second in zip(*students, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_what_is_saved_is_the_student(tmp_path):
    student = network()
    model = compiled(student, network(16))
    model.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "best.keras", monitor="loss", mode="min")])
    loaded = keras.models.load_model(tmp_path / "best.keras")
    assert isinstance(loaded, keras.Sequential)
    assert loaded.count_params() == student.count_params()
    np.testing.assert_allclose(loaded.predict(X, verbose=0), student.predict(X, verbose=0), atol=1e-6)


def test_pruning_reaches_the_student_alone():
    student = network()
    model = compiled(student, network(16), features={"body": "body"})
    model.fit(X, Y, verbose=0, callbacks=[PruneLowMagnitude(ConstantSparsity(0.5))])
    assert sparsity(student)["total"] == 0.5
    assert all(np.all(weight != 0) for weight in model.hints[0].get_weights()[:1])


@pytest.mark.parametrize("method", ["mean", "geometric", "weighted", "vote"])
def test_an_ensemble_teaches(method):
    teacher = PredictionEnsemble([network(4), network(6)], method)
    assert output_kinds("distill", "teacher", teacher) == ["softmax"]


def test_kinds_of_ends():
    assert output_kinds("distill", "student", network()) == ["softmax"]
    assert output_kinds("distill", "student", network(activation="sigmoid")) == ["sigmoid"]
    assert output_kinds("distill", "student", network(activation=None)) == ["linear"]
    nested = keras.Sequential([keras.Input((4,)), network(activation=None), layers.Softmax(), layers.Dropout(0.1)])
    assert output_kinds("distill", "student", nested) == ["softmax"]
    for sigmoid in (keras.activations.sigmoid, keras.ops.sigmoid, tf.nn.sigmoid):
        assert output_kinds("distill", "student", network(activation=sigmoid)) == ["sigmoid"]
    inputs = keras.Input((4,))
    ends_in_operation = keras.Model(inputs, keras.ops.sigmoid(network(activation=None)(inputs)))
    assert output_kinds("distill", "student", ends_in_operation) == ["sigmoid"]
    degrees = keras.Sequential([keras.Input((4,)), network(activation="sigmoid"), layers.Rescaling(360.0)])
    assert output_kinds("distill", "student", degrees) == ["linear"]


@pytest.mark.parametrize(("activation", "kind"), [(None, "linear"), ("softmax", "softmax"), ("sigmoid", "sigmoid")])
def test_a_quantization_aware_student_learns(activation, kind):
    student, teacher = quantize_aware(network(activation=activation)), network(16, activation=activation)
    assert output_kinds("distill", "student", student) == [kind]
    before = student.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    compiled(student, teacher, loss=loss, task="classification").fit(X, Y, verbose=0)
    assert any(np.any(new != old) for new, old in zip(student.get_weights(), before, strict=True))


def test_a_regression_needs_to_be_told():
    student, teacher = (network(activation=None, outputs=1) for _ in range(2))
    with pytest.raises(InputError, match="argument `task` must be given where a model ends in no softmax"):
        distill(student, teacher)
    model = compiled(student, teacher, loss="mse", task="regression")
    gap = ((student.predict(X, verbose=0) - teacher.predict(X, verbose=0)) ** 2).mean()
    logs = model.fit(X, Y, batch_size=24, verbose=0).history
    np.testing.assert_allclose(logs["distillation_loss"], gap, rtol=1e-4)


MAPS = keras.Sequential([keras.Input((4,)), layers.Reshape((2, 2), name="maps"), layers.Flatten(), network()])


@pytest.mark.parametrize(
    ("teacher", "settings", "message"),
    [
        (network(outputs=4), {}, r"argument `teacher` must be a model with the student's outputs of shape \[\(3,\)\]"),
        (
            network(),
            {"features": {"body": "no"}},
            r"`features` names 'no', which the teacher does not have. It has body",
        ),
        (MAPS, {"features": {"body": "maps"}}, "argument `features` must be pairs of layers of as many axes"),
    ],
    ids=["classes", "missing layer", "rank"],
)
def test_refusals(teacher, settings, message):
    with pytest.raises(InputError, match=message):
        distill(network(), teacher, **settings)


def test_a_regression_is_told_values_whatever_its_last_activation():
    student, teacher = (network(activation="sigmoid", outputs=1) for _ in range(2))
    model = compiled(student, teacher, rate=0.0, loss="mse", task="regression")
    gap = ((student.predict(X, verbose=0) - teacher.predict(X, verbose=0)) ** 2).mean()
    for data in ((X, Y / 3), (cache_teacher(teacher, X, Y / 3, batch_size=24, verbose=0),)):
        logs = model.fit(*data, batch_size=None if len(data) == 1 else 24, shuffle=False, verbose=0).history
        np.testing.assert_allclose(logs["distillation_loss"], gap, rtol=1e-4)


@pytest.mark.parametrize(
    ("end", "units", "task", "message"),
    [
        ("sigmoid", 1, "classification", "'multi_label' for a model that ends in a single unit"),
        ("softmax", 3, "multi_label", "'classification' for a model that ends in a softmax"),
        ("softmax", 3, ["classification"] * 2, "one task, or one for each of 1 outputs"),
    ],
)
def test_a_task_that_the_outputs_cannot_have(end, units, task, message):
    with pytest.raises(InputError, match=f"distill: argument `task` must be {message}"):
        distill(network(activation=end, outputs=units), network(activation=end, outputs=units), task=task)


def test_a_softmax_teaches_no_sigmoid():
    with pytest.raises(InputError, match="'classification' for a model that ends in a softmax"):
        distill(network(activation="sigmoid"), network())


def test_each_output_has_its_task():
    def two():
        inputs = keras.Input((4,))
        heads = {"a": layers.Dense(3, "softmax", name="a")(inputs), "b": layers.Dense(1, name="b")(inputs)}
        return keras.Model(inputs, heads)

    student, teacher = two(), two()
    model = distill(student, teacher, task=["classification", "regression"])
    model.compile(keras.optimizers.SGD(0.0), {"a": "sparse_categorical_crossentropy", "b": "mse"})
    logs = model.fit(X, {"a": Y, "b": Y}, batch_size=24, verbose=0).history
    (p, said), (q, guessed) = (each.predict(X, verbose=0).values() for each in (teacher, student))
    soft = 9 * divergence(softmax(np.log(p) / 3), softmax(np.log(q) / 3)).mean()
    np.testing.assert_allclose(logs["distillation_loss"], soft + ((said - guessed) ** 2).mean(), rtol=1e-4)


@pytest.mark.parametrize("loss_weights", [[2.0, 0.25], {"a": 2.0, "b": 0.25}], ids=["list", "dict"])
def test_the_weight_of_an_output_is_that_of_its_soft_targets_too(loss_weights):
    def two():
        inputs = keras.Input((4,))
        return keras.Model(inputs, [layers.Dense(1, name="b")(inputs), layers.Dense(1, name="a")(inputs)][::-1])

    student, teacher = two(), two()
    model = distill(student, teacher, task="regression", student_loss_weight=0.0)
    loss = "mse" if isinstance(loss_weights, list) else {"a": "mse", "b": "mse"}
    model.compile(keras.optimizers.SGD(0.0), [loss, loss] if loss == "mse" else loss, loss_weights)
    logs = model.fit(X, [Y, Y], batch_size=24, verbose=0).history
    a, b = (
        np.mean((ours - theirs) ** 2)
        for ours, theirs in zip(student.predict(X, verbose=0), teacher.predict(X, verbose=0), strict=True)
    )
    np.testing.assert_allclose(logs["loss"], 2 * a + 0.25 * b, rtol=1e-5)


def test_the_weights_of_one_output_are_those_of_no_other():
    def two():
        inputs = keras.Input((4,))
        return keras.Model(inputs, {name: layers.Dense(1, name=name)(inputs) for name in "ab"})

    student, teacher = two(), two()
    model = distill(student, teacher, task="regression", student_loss_weight=0.0)
    model.compile(keras.optimizers.SGD(0.0), {"b": "mse"}, {"b": 0.5})
    logs = model.fit(X, {"b": Y}, batch_size=24, sample_weight={"b": np.full(24, 0.25)}, verbose=0).history
    gaps = [
        np.mean((ours - theirs) ** 2)
        for ours, theirs in zip(
            student.predict(X, verbose=0).values(), teacher.predict(X, verbose=0).values(), strict=True
        )
    ]
    np.testing.assert_allclose(logs["loss"], gaps[0] + 0.5 * 0.25 * gaps[1], rtol=1e-5)


def test_the_answers_of_a_teacher_may_come_in_a_dict():
    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, {"scores": network()(inputs)})
    _, targets = next(iter(cache_teacher(teacher, X, Y, batch_size=24, seed=0, verbose=0)))
    assert targets["teacher"].shape == (24, 3)


@pytest.mark.parametrize("which", ["input", "output"])
def test_a_teacher_with_the_same_names_in_another_order_is_refused(which):
    def two(ins, outs):
        inputs = {name: keras.Input((4,), name=name) for name in "cd"}
        outputs = {name: layers.Dense(1, name=name)(keras.layers.Add()(list(inputs.values()))) for name in "ab"}
        return keras.Model([inputs[name] for name in ins], [outputs[name] for name in outs])

    teacher = two("dc", "ab") if which == "input" else two("cd", "ba")
    with pytest.raises(InputError, match=f"argument `teacher` must be a model with its {which}s in the order"):
        distill(two("cd", "ab"), teacher, task="regression")


def test_what_is_masked_teaches_nothing():
    def tagger(units):
        inputs = keras.Input((5,), dtype="int32")
        words = layers.Embedding(9, units, mask_zero=True)(inputs)
        return keras.Model(inputs, layers.Dense(3, "softmax")(words))

    x = RNG.integers(1, 9, (8, 5)) * (np.arange(5) < 3)
    student, teacher = tagger(2), tagger(8)
    teacher.set_weights([5 * weight for weight in teacher.get_weights()])
    logs = compiled(student, teacher, rate=0.0).fit(x, x % 3, batch_size=8, verbose=0).history
    p, q = (softmax(np.log(each.predict(x, verbose=0)) / 3) for each in (teacher, student))
    np.testing.assert_allclose(logs["distillation_loss"], 9 * divergence(p, q)[:, :3].mean(), rtol=1e-4)


def test_two_replicas_learn_and_log_as_one_does(two_replicas):
    histories, weights = [], None
    for place in (contextlib.nullcontext(), two_replicas.scope()):
        with place:
            student, teacher = network(l2=0.1), network(16)
            weights = weights or (student.get_weights(), teacher.get_weights())
            student.set_weights(weights[0])
            teacher.set_weights(weights[1])
            model = compiled(student, teacher)
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(24)
        histories.append(model.fit(data, epochs=2, verbose=0).history)
    for name, one in histories[0].items():
        np.testing.assert_allclose(histories[1][name], one, rtol=1e-4, err_msg=name)


def test_a_student_of_mixed_precision_has_its_loss_scaled():
    student = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    student.dtype_policy = keras.DTypePolicy("mixed_float16")
    model = compiled(student, network())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_class_weights_beside_cached_answers():
    student, teacher = network(), network(16)
    model = compiled(student, teacher, rate=0.0)
    classes = {0: 2.0, 1: 0.0, 2: 1.0}
    whole = model.fit(X, Y, batch_size=24, class_weight=classes, verbose=0).history
    batches = cache_teacher(teacher, X, Y, batch_size=24, verbose=0, class_weight=classes)
    cached = model.fit(batches, shuffle=False, verbose=0).history
    for name, value in whole.items():
        np.testing.assert_allclose(cached[name], value, rtol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("teacher", "teacher.keras"), ("features", ["body"])])
def test_wrong_kinds(name, value):
    with pytest.raises(TypeError, match=f"argument `{name}` must be a"):
        distill(**{"student": network(), "teacher": network(), name: value})


@pytest.mark.parametrize(
    ("end", "units", "kind"), [("softmax", 3, "softmax"), ("sigmoid", 1, "sigmoid"), (None, 3, "linear")]
)
@pytest.mark.parametrize("method", ["mean", "weighted"])
def test_an_ensemble_is_read_as_its_members_are(end, units, kind, method):
    members = [network(4, end, units) for _ in range(2)]
    ensemble = PredictionEnsemble(members, method)
    assert output_kinds("distill", "teacher", ensemble) == [kind]
    assert output_kinds("distill", "teacher", ensemble.to_plain()) == [kind]


def test_a_layer_that_happens_to_weigh_is_no_ensemble():
    ends = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    assert output_kinds("distill", "student", keras.Sequential([keras.Input((1,)), ends])) == ["linear"]
    alone = PredictionEnsemble([network(4, "sigmoid", 1)], "weighted")
    assert output_kinds("distill", "teacher", alone) == ["sigmoid"]


def test_an_ensemble_that_votes_on_labels_teaches_their_probabilities():
    members = [network(4, "sigmoid", 1) for _ in range(2)]
    assert output_kinds("distill", "teacher", PredictionEnsemble(members, "vote")) == ["sigmoid"]
