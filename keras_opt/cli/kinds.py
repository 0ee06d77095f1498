"""The kinds of device file, here once more so that a mistyped one is refused before TensorFlow is imported."""

KINDS = ("int8", "dynamic", "float16", "float32")
