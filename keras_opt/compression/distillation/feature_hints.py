"""What a student is told by a layer inside of its teacher."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import InputError, argument_error


class FeatureHint(keras.layers.Layer):
    """A student's feature and a teacher's, made comparable: their mean squared difference is to fall.

    Where the channels differ in number, a learnt linear projection (a 1x1 convolution on maps) brings the student's to
    the teacher's; where the sizes of the maps differ, the teacher's is resized to the student's.

    Its weights are part of the training and of no saved student.

    Source: A. Romero et al., 2015, "FitNets: Hints for Thin Deep Nets", equation 3.
    """

    def __init__(self, student_shape: tuple, teacher_shape: tuple, name: str):
        super().__init__(name=name, dtype="float32")
        self._resizes = student_shape[1:-1] != teacher_shape[1:-1]
        self._size = student_shape[1:-1]
        self._projection = self._offset = None
        if student_shape[-1] != teacher_shape[-1]:
            # Not called a kernel, which pruning looks for.
            shape = (student_shape[-1], teacher_shape[-1])
            self._projection = self.add_weight(shape=shape, initializer="glorot_uniform", name="projection")
            self._offset = self.add_weight(shape=shape[1:], initializer="zeros", name="offset")
        self.built = True

    def call(self, student: Any, teacher: Any) -> tuple[Any, Any]:
        """The two as rows, (batch, values), whose mean squared difference is the loss."""
        student, teacher = ops.cast(student, "float32"), ops.stop_gradient(ops.cast(teacher, "float32"))
        if self._projection is not None:
            student = ops.matmul(student, self._projection) + self._offset
        if self._resizes:
            teacher = _resized(teacher, self._size)
        return tuple(ops.reshape(each, (-1, math.prod(each.shape[1:]))) for each in (student, teacher))


def hints(owner: str, features: Mapping[str, str], student: keras.Model, teacher: keras.Model) -> list[FeatureHint]:
    """A hint for each pair of `features`, student's layer to teacher's.

    Raises:
        ValueError: A layer is missing, is called more than once, or its output fits that of the other in no way.
    """
    made = []
    for of_student, of_teacher in features.items():
        shapes = [
            _output_shape(owner, role, model, name)
            for role, model, name in (("student", student, of_student), ("teacher", teacher, of_teacher))
        ]
        if len(shapes[0]) != len(shapes[1]) or any(None in shape[1:] for shape in shapes):
            must_be = f"pairs of layers of as many axes and of fixed sizes; {of_student!r} gives {shapes[0]}"
            cure = f"{of_teacher!r} gives {shapes[1]}. Choose the layers before the pooling in both."
            raise argument_error(owner, "features", dict(features), must_be, cure)
        made.append(FeatureHint(*shapes, name=f"hint_{len(made)}"))
    return made


def _output_shape(owner, role, model, name):
    layer = next((layer for layer in model.layers if layer.name == name), None)
    if layer is None:
        names = ", ".join(layer.name for layer in model.layers)
        raise InputError(
            f"{owner}: argument `features` names {name!r}, which the {role} does not have. It has {names}."
        )
    try:
        output = layer.output
    except AttributeError as error:
        raise InputError(
            f"{owner}: argument `features` names {name!r}, which the {role} calls several times."
        ) from error
    return tuple(output.shape)


def _resized(maps, size):
    if len(size) == 1:
        return ops.squeeze(ops.image.resize(maps[:, :, None], (*size, 1), data_format="channels_last"), axis=2)
    return ops.image.resize(maps, size, data_format="channels_last")
