"""A strategy of one device, as MirroredStrategy is on a machine with one GPU: code in a replica, but only one of them.

In a process of its own, for TensorFlow wants one MirroredStrategy in a process.
"""

from pathlib import Path

TESTS = Path(__file__).parent.parent
PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
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
    plain = models.weight_change(fit(tf.distribute.get_strategy()), "sequential")
    for strategy in (tf.distribute.MirroredStrategy(["CPU:0"]), tf.distribute.OneDeviceStrategy("CPU:0")):
        ours = models.weight_change(fit(strategy), "sequential")
        print(type(strategy).__name__, models.deviation(ours, plain))
"""


def test_every_callback_gives_what_it_gives_without_a_strategy(keras_opt_process, tmp_path):
    done = keras_opt_process(str(TESTS), cwd=tmp_path, code=PROCESS)
    assert done.returncode == 0, done.stderr[-2000:]
    deviations = dict(line.split() for line in done.stdout.splitlines()[-2:])
    assert set(deviations) == {"MirroredStrategy", "OneDeviceStrategy"}
    assert max(map(float, deviations.values())) < 1e-10
