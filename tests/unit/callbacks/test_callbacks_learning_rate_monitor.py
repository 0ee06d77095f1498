"""The rate in the history."""

import keras
import numpy as np
import pytest

from keras_opt.callbacks import LearningRateMonitor
from keras_opt.schedules import OneCycle


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaled"])
def test_the_rate_of_a_schedule_at_each_epoch_end(scaled):
    schedule = OneCycle(0.1, 6)
    optimizer = keras.optimizers.SGD(schedule)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0) if scaled else optimizer, "mse")
    data = np.ones((4, 2)), np.ones((4, 1))
    history = model.fit(*data, batch_size=2, epochs=3, verbose=0, callbacks=[LearningRateMonitor()])
    expected = [float(schedule(step)) for step in (2, 4, 6)]
    np.testing.assert_allclose(history.history["learning_rate"], expected, rtol=1e-6)
    assert all(type(rate) is float for rate in history.history["learning_rate"])
