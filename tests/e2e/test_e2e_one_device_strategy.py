"""A strategy of one device, as MirroredStrategy is on a machine with one GPU: code in a replica, but only one of them.

In processes of their own, for TensorFlow wants one MirroredStrategy in a process.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PROCESS = """
import sys
sys.path.insert(0, sys.argv[2])
import conftest  # one thread, two CPUs
import keras, tensorflow as tf
import oracle_models as models
from keras_opt.callbacks import GradientAccumulation, GradientMonitor, SharpnessAwareMinimization, WeightAveraging

def fit(strategy):
    model = models.build("sequential", strategy)
    with strategy.scope():
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    callbacks = [GradientAccumulation(3), SharpnessAwareMinimization(interval=2), GradientMonitor(warn=False)]
    callbacks.append(WeightAveraging("lookahead", every=2))
    batches = models.dataset(*models.data("sequential"))
    model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    return model

with models.float64():
    strategies = tf.distribute.get_strategy(), eval(sys.argv[1])
    plain, ours = (models.weight_change(fit(strategy), "sequential") for strategy in strategies)
print("deviation", models.deviation(ours, plain))
"""


@pytest.mark.parametrize("strategy", ["MirroredStrategy(['CPU:0'])", "OneDeviceStrategy('CPU:0')"])
def test_every_callback_gives_what_it_gives_without_a_strategy(strategy, keras_opt_process, tmp_path):
    done = keras_opt_process(f"tf.distribute.{strategy}", str(TESTS), cwd=tmp_path, code=PROCESS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) < 1e-10
