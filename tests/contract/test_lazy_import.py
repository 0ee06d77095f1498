"""What `import keras_opt` loads, and how fast: asked in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

OPTIONAL = (
    "keras_tuner",
    "optuna",
    "tensorflow_model_optimization",
    "tf_keras",
    "matplotlib",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "tflite_micro",
)


def answer(code):
    """What a fresh interpreter prints as JSON."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_package_alone_loads_no_framework_and_no_optional_package():
    loaded = set(answer("import json, sys, keras_opt; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"))
    assert loaded.isdisjoint({"tensorflow", "keras", "numpy", "rich", *OPTIONAL})


def test_the_package_loads_in_under_a_tenth_of_a_second():
    code = "import time; t = time.perf_counter(); import keras_opt; print(time.perf_counter() - t)"
    assert min(answer(code) for _ in range(5)) < 0.1


@pytest.fixture(scope="module")
def everything():
    """A process that touches every public attribute of the package."""
    return answer(
        "import json, sys, tensorflow, keras\n"
        "before = set(sys.modules)  # Keras itself loads Matplotlib where it finds it\n"
        "import keras_opt\n"
        "kinds = {name: type(getattr(keras_opt, name)).__name__ for name in dir(keras_opt)}\n"
        "print(json.dumps([kinds, [m.partition('.')[0] for m in sys.modules if m not in before]]))"
    )


def test_every_subpackage_loads_on_access(everything):
    kinds, _ = everything
    assert kinds.pop("load_model") == "function"
    assert kinds.pop("__version__") == "str"
    assert set(kinds.values()) == {"module"}


def test_all_subpackages_together_load_no_optional_package(everything):
    _, loaded = everything
    assert "keras_opt" in loaded
    assert set(loaded).isdisjoint(OPTIONAL)


def test_an_unknown_attribute_is_an_attribute_error():
    import keras_opt

    with pytest.raises(AttributeError, match="module 'keras_opt' has no attribute 'nonsense'"):
        keras_opt.nonsense  # noqa: B018


def test_every_class_registered_with_keras_is_known_after_load_model_alone():
    code = (
        "import json, keras\n"
        "known = lambda: sorted(n for n in keras.saving.get_custom_objects() if n.startswith('keras_opt'))\n"
        "import keras_opt\n"
        "try: keras_opt.load_model('no such file')\n"
        "except ValueError: pass\n"
        "import importlib, keras_opt.loading as loading\n"
        "[importlib.import_module(f'keras_opt.{room}') for room in loading._ROOMS_WITH_CLASSES]\n"
        "first = known()\n"
        "[getattr(keras_opt, name) for name in dir(keras_opt)]\n"
        "print(json.dumps([first, known()]))"
    )
    first, everything = answer(code)
    assert first == everything
    assert "keras_opt>OneCycle" in first
