import csv
import warnings

import keras
import numpy as np
import pytest

import keras_opt
from keras_opt.callbacks import GradientClipping, GradientMonitor, LearningRateMonitor
from keras_opt.callbacks.log_sources import added_by, source_of


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where TensorBoard("logs") makes its folder


SOURCES = {
    "GradientMonitor": lambda: GradientMonitor(ratios=True),
    "GradientClipping": lambda: GradientClipping(clipnorm=1.0),
    "LearningRateMonitor": LearningRateMonitor,
}


def model():
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def fit(*callbacks, epochs=1):
    return model().fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks)


def order_warnings(*callbacks):
    """What `set_model` warns of when Keras makes the list."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keras.callbacks.CallbackList(list(callbacks), add_history=True, model=model())
    return [str(each.message) for each in caught if "listed before" in str(each.message)]


class MlflowCallback(keras.callbacks.Callback):
    """As if it came from MLflow."""


MlflowCallback.__module__ = "mlflow.keras.callback"


class WandbModelCheckpoint(keras.callbacks.ModelCheckpoint):
    """As if it came from W&B."""


WandbModelCheckpoint.__module__ = "wandb.integration.keras"


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_a_source_says_exactly_what_it_adds(make):
    source = make()
    plain = fit()
    assert set(fit(source).history) - set(plain.history) == set(added_by(source))


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_a_logger_before_its_source_misses_its_columns_and_one_warning_gives_the_order(make, tmp_path):
    source = make()
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    own = type(source).__name__
    with pytest.warns(UserWarning, match="listed before") as caught:
        fit(logger, source)
    (message,) = [str(each.message) for each in caught if "listed before" in str(each.message)]
    assert message == (
        f"{own}: what it adds to the logs ({', '.join(added_by(source))}) is not seen by CSVLogger, listed before it. "
        f"List them as callbacks=[{own}, CSVLogger]."
    )
    assert not columns(tmp_path / "log.csv") & set(added_by(source))


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_the_order_that_the_warning_gives_is_right(make, tmp_path):
    source = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(source, keras.callbacks.CSVLogger(tmp_path / "log.csv"))
    assert columns(tmp_path / "log.csv") >= set(added_by(source))


def columns(path):
    with path.open(newline="") as file:
        return set(next(csv.reader(file)))


@pytest.mark.parametrize(
    ("readers", "named"),
    [
        ([lambda: keras.callbacks.TensorBoard("logs")], "TensorBoard"),
        ([keras.callbacks.RemoteMonitor], "RemoteMonitor"),
        ([keras.callbacks.History], "History"),
        ([MlflowCallback], "MlflowCallback"),
        ([lambda: keras.callbacks.ModelCheckpoint("a.keras", monitor="grad_norm", mode="min")], "ModelCheckpoint"),
        ([lambda: keras.callbacks.EarlyStopping(monitor="grad_norm_max", mode="min")], "EarlyStopping"),
        ([lambda: keras.callbacks.ReduceLROnPlateau(monitor="grad_norm", mode="min")], "ReduceLROnPlateau"),
        ([MlflowCallback, keras.callbacks.History, MlflowCallback], "MlflowCallback, History"),
    ],
)
def test_who_is_warned_of(readers, named):
    (message,) = order_warnings(*(make() for make in readers), GradientMonitor())
    assert message.endswith(f"callbacks=[GradientMonitor, {named}].")


def test_a_monitor_is_told_of_its_own_name_only():
    (message,) = order_warnings(keras.callbacks.EarlyStopping("grad_norm", mode="min"), GradientMonitor())
    assert "what it adds to the logs (grad_norm) is not seen by EarlyStopping" in message


@pytest.mark.parametrize(
    "reader",
    [
        keras.callbacks.LambdaCallback,
        lambda: keras.callbacks.EarlyStopping("loss"),
        lambda: keras.callbacks.ModelCheckpoint("a.keras", monitor="val_loss"),
        lambda: WandbModelCheckpoint("a.keras", monitor="loss"),
        lambda: keras.callbacks.EarlyStopping("update_ratio", mode="min"),  # which is not recorded without `ratios`
    ],
)
def test_who_is_not_warned_of(reader):
    assert order_warnings(reader(), GradientMonitor()) == []


def test_tensorboard_finds_the_learning_rate_by_itself():
    assert order_warnings(keras.callbacks.TensorBoard("logs"), LearningRateMonitor()) == []


def test_each_of_two_sources_warns():
    logger = keras.callbacks.RemoteMonitor()
    assert len(order_warnings(logger, GradientMonitor(), GradientClipping(clipnorm=1.0))) == 2
    assert len(order_warnings(GradientMonitor(), logger, GradientClipping(clipnorm=1.0))) == 1


def test_a_name_that_an_earlier_source_adds_is_seen():
    logger = keras.callbacks.RemoteMonitor()
    assert order_warnings(LearningRateMonitor(), logger, keras_opt.callbacks.ReduceLROnPlateau("loss")) == []
    assert len(order_warnings(logger, LearningRateMonitor(), keras_opt.callbacks.ReduceLROnPlateau("loss"))) == 2


def test_an_evaluation_reads_no_logs_of_epochs(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
        model().evaluate(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[logger, LearningRateMonitor()])


def test_the_source_of_a_name():
    class OfOnesOwn(keras.callbacks.Callback):
        added_to_logs = ("kappa",)

    callbacks = [GradientMonitor(), keras.callbacks.ReduceLROnPlateau(), OfOnesOwn()]
    found = [source_of(name, callbacks) for name in ("grad_norm", "update_ratio", "learning_rate", "kappa", "loss")]
    assert found == ["GradientMonitor", None, "ReduceLROnPlateau", "OfOnesOwn", None]
