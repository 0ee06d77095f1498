"""Fine-tuning from the head down: layers are unfrozen as the epochs of one `fit` go by."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.siblings import siblings
from keras_opt.callbacks.unfreezing_entries import layers_by_entry, variables_by_entry
from keras_opt.core.errors import InputError, argument_error, is_number
from keras_opt.core.optimizers import inner, parts
from keras_opt.core.trainable_flags import let_train, without_batch_norm
from keras_opt.training.callers import is_called_by_evaluation
from keras_opt.training.group_rates import GroupRates, RateGroup
from keras_opt.training.step_hooks import StepHooks


class GradualUnfreezing(keras.callbacks.Callback):
    """Trains the head of a pretrained model first, and unfreezes the layers below from epoch to epoch.

    A new head starts with random weights, and its first gradients would wash out what the layers below have learned. So
    those are frozen until the head has settled, the more general ones the longest, and then move at lower rates. Use it
    to fine-tune a pretrained model on little data; not to train from scratch, where nothing is there to be kept.

    `schedule` says which layers train from which epoch on, beside those before. Those of its k-th entry, k = 0, 1, ...,
    make steps at the rate

        learning_rate / lr_decay ** k

    with momentum, weight decay, constraints and Adam's bias corrections as of an optimizer of their own, which starts
    when they do. (An optimizer of Keras counts updates for all variables together. Adam would then move a layer that
    comes late up to 6.6 times too far, for hundreds of updates.) All else goes on unbroken: the slots of layers that
    train already, schedules of the rate, `optimizer.iterations`. A schedule or a callback that sets the rate scales the
    rates of all layers alike.

    Layers that no entry so far names are frozen, whatever `trainable` was before; BatchNorm layers among them use, and
    keep, their statistics. With `freeze_batch_norm=True` they do so to the end, as is best for small batches; a
    backbone that is called as `base(x, training=False)` does not, for `fit` overrides that. The kernels that
    `enable_lora` has frozen stay frozen. After `fit` all flags stay as the last epoch had them, and the optimizer has
    one rate again.

    A word in `schedule` names layers, with all that is in them, nested models too:

    | word | layers |
    |---|---|
    | `"all"` | all |
    | `"conv5*"`, a name or a pattern as in `fnmatch` | those whose name or path fits |
    | `"block5"`, as in VGG, if no layer is called that | those whose name begins with `block5_` |
    | `"head"`, if no layer is called that either | those that make the outputs |

    Every network has names of its own, in `[layer.name for layer in model.layers]`. For one with BatchNorm, such as
    MobileNetV2, take the last block by its name and the arguments of the example below.

    Args:
        schedule: From epochs (int, from 0 as in `initial_epoch`; one must be 0) to a word or a list of words.
        lr_decay: By how much the rate of an entry's layers is lower than that of the entry before; a float of at least
            1, or `None` for one rate. Default 2.6, as in the paper.
        freeze_batch_norm: Whether BatchNorm layers stay frozen, whatever names them. Default `False`.

    Raises:
        ValueError: An argument is out of its range; a word fits no layer; an entry adds no weights to those before; the
            model has no weights yet; or its optimizer is a `MultiOptimizer`, has `use_ema`, or was built for fewer
            layers.
        RuntimeError: Another `GradualUnfreezing` is in the fit.

    A model that is saved in the middle of the schedule is loaded without the optimizer's slots of the layers that were
    frozen; to go on there, use `BackupAndRestore`.

    Cost: the optimizer has its slots for all layers that will train from the begin; each entry costs one trace of the
        step. With weight decay, in a step one copy of the weights that are not of the first entry.

    Source: J. Howard and S. Ruder, 2018, "Universal Language Model Fine-tuning for Text Classification", sections 3.2
        and 3.3.

    Example:
        >>> import keras_opt
        >>> schedule = {0: "head", 3: "block_16*", 5: "all"}  # the names of MobileNetV2
        >>> unfreeze = keras_opt.callbacks.GradualUnfreezing(schedule, lr_decay=10, freeze_batch_norm=True)
    """

    def __init__(
        self,
        schedule: Mapping[int, str | Sequence[str]],
        lr_decay: float | None = 2.6,
        freeze_batch_norm: bool = False,
    ):
        super().__init__()
        self.schedule = _checked(schedule)
        if lr_decay is not None and not (is_number(lr_decay) and lr_decay >= 1):
            cure = "Give 1 or None for one rate."
            raise argument_error("GradualUnfreezing", "lr_decay", lr_decay, "a number of at least 1, or None", cure)
        self.lr_decay = lr_decay
        self.freeze_batch_norm = freeze_batch_norm
        self._epochs = list(self.schedule)
        self._layers: list[list[keras.Layer]] = []
        self._variables: list[list[keras.Variable]] = []
        # Of each entry the first update. A fact about the optimizer's slots: a second fit with that goes on from it.
        self._first_updates: list[int | None] = []
        self._optimizer: keras.optimizers.Optimizer | None = None
        self._hooks: StepHooks | None = None
        self._plugin: GroupRates | None = None
        self._entry = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "GradualUnfreezing":
        return copy_without_fit(self, memo, "_hooks", "_plugin", "_optimizer", "_layers", "_variables")

    # --- fit ---------------------------------------------------------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        StepHooks.prepare(model)
        super().set_model(model)
        if is_called_by_evaluation(model):
            return
        if any(isinstance(each, GradualUnfreezing) and each is not self for each in siblings(self) or ()):
            raise RuntimeError("GradualUnfreezing: two of them would act on this model. Leave one out.")
        _check_model(model)
        self._layers = layers_by_entry(model, self.schedule)
        if self.freeze_batch_norm:
            self._layers = [without_batch_norm(layers) for layers in self._layers]
        self._variables = variables_by_entry(model, self._layers, self.schedule)
        if model.optimizer.built:
            _check_optimizer_knows(model, self._variables)
        if self._optimizer is not model.optimizer:
            self._optimizer = model.optimizer
            self._first_updates = [0] + [None] * (len(self._epochs) - 1)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.model.optimizer.built:
            _build_optimizer(self.model, self._variables)
        self._enter(0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        entry = max(place for place, begin in enumerate(self._epochs) if begin <= epoch)
        for place in range(entry + 1):
            if self._first_updates[place] is None:
                is_now = self._epochs[place] == epoch
                # What an earlier training unfroze, whose state is not known, counts as trained from the begin.
                self._first_updates[place] = self._updates() if is_now else 0
        if entry != self._entry:
            self._enter(entry)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._leave()

    def _enter(self, entry: int) -> None:
        """Let the layers of the entries up to `entry` train, in a step that is traced anew."""
        self._leave()
        self._entry = entry
        let_train(self.model, [layer for group in self._layers[: entry + 1] for layer in group])
        # Not only what runs with the plugin: a step traced before, which the hub puts back, trains other layers.
        self.model.make_train_function(force=True)
        self._hooks = StepHooks.of(self.model)
        groups = [
            RateGroup(variables, (self.lr_decay or 1) ** -place, self._first_updates[place] or 0)
            for place, variables in enumerate(self._variables[: entry + 1])
        ]
        self._plugin = GroupRates(self.model, self._hooks.optimizer, groups)
        self._hooks.add(self._plugin)

    def _leave(self) -> None:
        if self._plugin is not None:
            self._hooks.remove(self._plugin)
            self._plugin = None

    def _updates(self) -> int:
        return int(keras.ops.convert_to_numpy(inner(self.model.optimizer).iterations))

    # --- resume ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The update at which each entry's layers began to train; all else follows from the epoch."""
        return {"first_updates": list(self._first_updates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew.

        Raises:
            ValueError: The state is that of another schedule.
        """
        if len(state["first_updates"]) != len(self._epochs):
            cure = "Go on with the schedule that the training began with."
            raise argument_error("GradualUnfreezing", "schedule", self.schedule, "the one of the saved state", cure)
        if state["first_updates"] != self._first_updates:
            self._first_updates = list(state["first_updates"])
            self._enter(self._entry)


def _checked(schedule: Any) -> dict[int, list[str]]:
    """`schedule` in the order of its epochs, with lists of words."""
    must_be = "a dict from epochs, integers of at least 0, to names of layers"
    cure = 'Give for example {0: "head", 3: "block_16*", 5: "all"}.'
    if not isinstance(schedule, Mapping) or not schedule:
        raise argument_error("GradualUnfreezing", "schedule", schedule, must_be, cure)
    for epoch in schedule:
        if not isinstance(epoch, numbers.Integral) or isinstance(epoch, bool) or epoch < 0:
            raise argument_error("GradualUnfreezing", "schedule", schedule, must_be, f"{epoch!r} is no epoch. {cure}")
    if 0 not in schedule:
        cure = "Something must train from epoch 0 on; " + cure[0].lower() + cure[1:]
        raise argument_error("GradualUnfreezing", "schedule", schedule, must_be + ", one of them 0", cure)
    ordered = {}
    for epoch in sorted(schedule):
        words = schedule[epoch]
        ordered[epoch] = [words] if isinstance(words, str) else list(words) if isinstance(words, Sequence) else []
        if not ordered[epoch] or not all(isinstance(word, str) for word in ordered[epoch]):
            raise argument_error("GradualUnfreezing", "schedule", schedule, must_be, cure)
    return ordered


def _check_model(model: keras.Model) -> None:
    if not model.built or not model.weights:
        raise InputError(
            f"GradualUnfreezing: model {model.name!r} has no weights yet to freeze. Start it with keras.Input(shape), "
            "or build it before `fit`."
        )
    if inner(model.optimizer).use_ema:
        raise InputError(
            "GradualUnfreezing: the model was compiled with use_ema=True, and Keras would put the averages of some "
            "weights over others while layers are frozen. Leave use_ema out of the optimizer, and use the callback "
            "WeightAveraging."
        )
    if parts(inner(model.optimizer)):
        raise InputError(
            "GradualUnfreezing: a MultiOptimizer takes the gradients of all its variables or of none, so none of them "
            "can be frozen for a while. Compile with one optimizer; `lr_decay` gives lower layers lower rates."
        )


def _build_optimizer(model: keras.Model, groups: list[list[keras.Variable]]) -> None:
    """Build the optimizer for the variables in all `groups`: Keras's take those of their first update for good."""
    optimizer = model.optimizer
    chosen = {id(variable) for group in groups for variable in group}
    variables = [variable for variable in model.variables if id(variable) in chosen]  # the order in a saved file
    with model.distribute_strategy.scope(), keras.name_scope(optimizer.name, caller=optimizer):
        optimizer.build(variables)
    optimizer.built = True


def _check_optimizer_knows(model: keras.Model, groups: list[list[keras.Variable]]) -> None:
    """Raise unless the optimizer was built for the variables in all `groups`."""
    optimizer = model.optimizer
    try:
        inner(optimizer)._check_variables_are_known([variable for group in groups for variable in group])
    except ValueError as error:
        raise InputError(
            f"GradualUnfreezing: the optimizer {optimizer.name!r} was built for fewer layers than will train, and "
            "cannot take more. Compile the model anew before this `fit`; in the scope of a distribution strategy, with "
            "all its layers trainable."
        ) from error
