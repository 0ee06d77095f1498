"""Rules about the source, read from its syntax tree."""

import ast
import re
from pathlib import Path

import pytest

import keras_opt

ROOT = Path(keras_opt.__file__).parent
FILES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}

every_file = pytest.mark.parametrize("path", FILES.values(), ids=FILES)


def tree_of(path):
    return ast.parse(path.read_text("utf-8"))


def breaks(tree):
    """What in a file breaks a rule, by line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "assert in the package: raise an error that names the cure"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        if isinstance(node, ast.Pass):
            yield node.lineno, "pass"
        if isinstance(node, ast.Attribute) and node.attr == "keras" and getattr(node.value, "id", "") in _TENSORFLOW:
            yield node.lineno, "tf.keras: import keras"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorflow.keras"):
            yield node.lineno, "tensorflow.keras: import keras"
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "relative import"
        if isinstance(node, ast.Import | ast.ImportFrom) and {"pickle", "dill", "cloudpickle"} & _imported(node):
            yield node.lineno, "pickle"
        if isinstance(node, ast.keyword) and (node.arg, getattr(node.value, "value", None)) in _UNSAFE:
            yield node.value.lineno, f"{node.arg}={node.value.value}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _MACHINE_PATH.search(node.value):
            yield node.lineno, "a path of one machine"


_TENSORFLOW = ("tf", "tensorflow")
_UNSAFE = (("allow_pickle", True), ("safe_mode", False))
_MACHINE_PATH = re.compile(r"(?<![\w.])/(work|root|home|tmp|usr|content)/")


def _imported(node):
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return {name.partition(".")[0] for name in names}


@every_file
def test_the_source_keeps_the_rules(path):
    assert list(breaks(tree_of(path))) == []


@every_file
def test_a_file_has_one_concept_and_at_most_400_lines(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400


@every_file
def test_modules_public_classes_and_public_functions_have_a_docstring(path):
    tree = tree_of(path)
    public = [
        node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    bare = [getattr(node, "name", "module") for node in (tree, *public) if not ast.get_docstring(node)]
    assert bare == []


@every_file
def test_public_functions_have_type_hints(path):
    functions = [node for node in tree_of(path).body if isinstance(node, ast.FunctionDef)]
    bare = [
        f"{function.name}({argument.arg})"
        for function in functions
        if not function.name.startswith("_")
        for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        if argument.annotation is None
    ]
    assert bare == []


@pytest.mark.parametrize(
    "source",
    [
        "assert x",
        "try:\n    f()\nexcept:\n    g()",
        "tf.keras.layers.Dense(1)",
        "from tensorflow.keras import layers",
        "import pickle",
        "np.load(f, allow_pickle=True)",
        "load_model(f, safe_mode=False)",
        "open('/root/x')",
        "from . import y",
    ],
)
def test_each_rule_finds_its_breach(source):
    assert len(list(breaks(ast.parse(source)))) == 1
