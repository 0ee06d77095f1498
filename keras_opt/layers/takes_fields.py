"""How an augmentation layer is called: with images alone or with what belongs to them; and the shapes that it gives."""

from collections.abc import Callable
from typing import Any

import keras


def takes_fields(check: Callable[[str, Any], None] | None = None) -> Callable[[type], type]:
    """Let the layers of a class be called as functions of `dataset.map` are, and tell the shapes of what they give.

    Keras traces a layer that has no `compute_output_shape`, which knows all forms of inputs. `TimeDistributed` asks for
    that method; but with it, `compute_output_spec` would trust it for all, and give the labels the images' dtype.

    Args:
        check: Called with the name of the class and the inputs before Keras sees them, so that its errors come whole.
    """

    def with_fields(layer_class: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
        def __call__(self, inputs: Any, *others: Any, **kwargs: Any) -> Any:
            """Takes what `dataset.map` gives as arguments of their own, labels and sample weights, into `inputs`."""
            inputs = (inputs, *others) if others else inputs
            if check is not None:
                check(layer_class.__name__, inputs)
            return super(layer_class, self).__call__(inputs, **kwargs)

        def compute_output_shape(self, input_shape: Any) -> Any:
            """The shapes of the outputs, in the form of `input_shape`: one shape, a pair or triple, or Keras's dict."""
            inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
            return keras.tree.map_structure(lambda output: output.shape, self.compute_output_spec(inputs))

        layer_class.__call__ = __call__
        layer_class.compute_output_shape = compute_output_shape
        layer_class.compute_output_spec = keras.Operation.compute_output_spec
        return layer_class

    return with_fields
