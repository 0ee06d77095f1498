"""The kinds of device file and of augmentation, once more: a mistyped one is refused before TensorFlow is imported."""

KINDS = ("int8", "dynamic", "float16", "float32")
AUGMENTATIONS = ("none", "affine", "cut_mix", "affine+cut_mix")

EXPORT_KINDS = (*KINDS, "int16x8", "int4")
IO_DTYPES = ("int8", "uint8", "int16", "float32")
