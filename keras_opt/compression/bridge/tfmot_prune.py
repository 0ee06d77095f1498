"""Magnitude pruning by TF-MOT."""

import warnings
from typing import Any

from keras_opt.compression.bridge.tf_keras_import import tf_keras, tfmot
from keras_opt.compression.bridge.tf_keras_models import as_tf_keras, ready_for_fit, wrap_layers
from keras_opt.compression.pruning.sparsity_schedules import ConstantSparsity, PolynomialSparsity
from keras_opt.core.call_stack import users_stacklevel
from keras_opt.core.errors import InputError, NoEffectWarning, check_at_least, kind_error


def tfmot_prune(model: Any, pruning_schedule: Any, frequency: int = 100, **settings: Any) -> Any:
    """Returns a tf_keras model in TF-MOT's pruning wrappers, ready for `compile` and `fit`.

    For those who compare with TF-MOT or depend on it; `PruneLowMagnitude` prunes a Keras 3 model in its own `fit`, to
    the asked sparsity and depthwise kernels too.

    `fit` of the result brings TF-MOT's `UpdatePruningStep` by itself, and takes callbacks of Keras 3 and keras_opt
    (see `for_tf_keras`). Compile it as a tf_keras model. `copy_weights_back` brings the pruned weights into `model`, if
    that is a Keras 3 model. A file of the result is a file of TF-MOT: loaded again, its `fit` is TF-MOT's.

    Two things are cured. A schedule whose length is no multiple of `frequency` would end below its final sparsity: it
    ends with the last renewal of the masks that it covers. And a constant sparsity from step 0, which TF-MOT sees for
    the first time at step `frequency`, begins with the first step.

    With best weights put back at the end of `fit` the masks are those of that epoch too: give `EarlyStopping` a
    `start_from_epoch` that lies behind the schedule.

    Args:
        model: A functional or Sequential model of Keras 3 or tf_keras; it is left as it is.
        pruning_schedule: `ConstantSparsity` or `PolynomialSparsity` of keras_opt, or a schedule of TF-MOT.
        frequency: Int of at least 1, the steps between two renewals of the masks; a schedule of TF-MOT brings its own.
        settings: TF-MOT's `block_size`, `block_pooling_type`, `sparsity_m_by_n`.

    Raises:
        ValueError: `to_tf_keras` refuses the model, TF-MOT a setting, or nothing in it can be pruned.
        TypeError: An argument is of another kind.

    Warns:
        NoEffectWarning: TF-MOT leaves kernels dense, those of depthwise layers for example; they are named.
        UserWarning: At the end of a `fit` that ended before the schedule did.

    Source: M. Zhu and S. Gupta, 2017, "To prune, or not to prune".

    Example:
        >>> import keras, keras_opt
        >>> from keras_opt.compression import ConstantSparsity, tfmot_prune
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
        >>> wrapped = tfmot_prune(model, ConstantSparsity(0.5))
    """
    check_at_least("tfmot_prune", "frequency", frequency, 1)
    sparsity = tfmot().sparsity.keras
    schedule = _schedule(pruning_schedule, frequency)
    source = as_tf_keras("tfmot_prune", model)

    def wrap(layer: Any) -> Any:
        try:
            wrapped = sparsity.prune_low_magnitude(layer, schedule, **settings)
        except ValueError as error:
            if "supported layer" not in str(error):
                raise InputError(f"tfmot_prune: TF-MOT refuses `{layer.name}`: {str(error).splitlines()[0]}") from error
            return None
        return wrapped if layer.get_prunable_weights() else None

    try:
        pruned, left = wrap_layers(source, wrap)
    except (TypeError, ValueError) as error:
        raise InputError(f"tfmot_prune: TF-MOT refuses {settings or 'the model'}: {error}") from error
    warn_of_layers_left("tfmot_prune", "prune", left, "PruneLowMagnitude prunes them")
    end_check = tf_keras().callbacks.LambdaCallback(
        on_train_end=lambda logs: _warn_of_missing_updates(pruned, schedule)
    )
    return ready_for_fit(pruned, source, lambda: [sparsity.UpdatePruningStep(), end_check])


def _warn_of_missing_updates(model: Any, schedule: Any) -> None:
    """Warn where a fit of `model` has ended before `schedule`."""
    wrapped = [each for each in model.submodules if hasattr(each, "pruning_step")]
    step = min((int(each.pruning_step) for each in wrapped), default=None)
    # A constant sparsity has the end -1, a class of the user's own maybe none.
    end = max(getattr(schedule, name, -1) for name in ("begin_step", "end_step"))
    if step is not None and step < end:
        warnings.warn(
            f"tfmot_prune: the fit ended after {step} updates, before the schedule, which ends with update {end}: the "
            "model is denser than asked. Another fit goes on from here; or let the schedule end earlier.",
            UserWarning,
            stacklevel=3,
        )


def warn_of_layers_left(owner: str, verb: str, left: list[str], cure: str) -> None:
    """Name the layers with a kernel that TF-MOT does nothing to."""
    if left:
        warnings.warn(
            f"{owner}: TF-MOT does not {verb} the kernels of {', '.join(left)}; {cure}.",
            NoEffectWarning,
            stacklevel=users_stacklevel(),
        )


def _schedule(given: Any, frequency: int) -> Any:
    """A schedule of TF-MOT that renews the masks where it begins and where it ends."""
    sparsity = tfmot().sparsity.keras
    if isinstance(given, ConstantSparsity):
        return sparsity.ConstantSparsity(given.target_sparsity, max(given.begin_step, 1), frequency=frequency)
    if isinstance(given, PolynomialSparsity):
        given = sparsity.PolynomialDecay(**given.get_config(), frequency=frequency)
    if type(given) is sparsity.PolynomialDecay:
        settings = given.get_config()["config"]
        length = given.end_step - given.begin_step
        frequency = min(given.frequency, max(length, 1))
        end_step = given.begin_step + length // frequency * frequency
        return sparsity.PolynomialDecay(**{**settings, "frequency": frequency, "end_step": end_step})
    if not isinstance(given, sparsity.PruningSchedule):
        cure = "Give for example PolynomialSparsity(0.0, 0.8, begin_step=0, end_step=1000)."
        raise kind_error("tfmot_prune", "pruning_schedule", given, "a schedule of keras_opt or of TF-MOT", cure)
    return given
