"""Try the installed wheel from an empty folder: version, embedded data, the whole demo, the exported predict.py."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

import keras_opt

BIN = Path(sys.executable).parent


def call(*command: str) -> str:
    print("$", *command, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def check(condition: bool, what: str) -> None:
    print(f"{'ok' if condition else 'FAILED'}: {what}", flush=True)
    if not condition:
        sys.exit(1)


check("site-packages" in keras_opt.__file__, "the installed package is tried, not the source tree")
check(keras_opt.__version__ in call(str(BIN / "keras-opt"), "--version"), "keras-opt --version")
(x_train, _), (x_test, y_test) = keras_opt.data.load_fashion_mnist_sample()
check((len(x_train), len(x_test)) == (10_000, 2_000), "the embedded data is in the wheel")

print(call(str(BIN / "keras-opt"), "demo"))
run = Path("runs/demo")
result = json.loads((run / "result.json").read_text(encoding="utf-8"))
plain, ours = result["plain"], result["optimised"]
check(ours["device_test_accuracy"] >= plain["test_accuracy"] - 0.005, "the device file is as accurate as plain Keras")
check(ours["test_accuracy"] >= plain["test_accuracy"], "the optimised Keras model is at least as accurate")
check(plain["tflite_bytes"] >= 3.3 * ours["tflite_bytes"], "the int8 file is 3.3 times smaller")
check(ours["argmax_agreement"] >= 0.97, "the device file agrees with the Keras model")
check(ours["cpu_seconds_to_plain_best"] is not None, "the plain run's best validation accuracy was reached")
halved = ours["cpu_seconds_to_plain_best"] <= 0.5 * plain["cpu_seconds_to_plain_best"]
check(halved, "in half its CPU seconds")

Image.fromarray(x_test[0]).save("one.png")
answer = call(sys.executable, str(run / "predict.py"), "one.png")
check(result["class_names"][y_test[0]] in answer, f"predict.py names the class: {answer.strip()}")
