"""Hyperband's plan, read off the trials themselves."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from keras_opt.core.optional import require
from keras_opt.tuning.evidence import random_point
from keras_opt.tuning.search_arguments import OracleArguments
from keras_opt.tuning.search_oracle import SearchOracle

Status = require("keras_tuner.engine.trial").TrialStatus


class Round(NamedTuple):
    """A round of a bracket: how many trials it has, and until which epoch they train."""

    iteration: int
    bracket: int
    round: int
    size: int
    epochs: int


def plan(max_epochs: int, factor: int, iterations: int) -> Iterator[Round]:
    """The rounds in order, the bracket with the most and shortest trials first.

    Bracket b begins with about factor^b trials of max_epochs / factor^b epochs; each round keeps one in `factor` of
    them and trains it `factor` times as long.
    """
    # Rounded: the logarithm of a whole power is not always whole.
    steps = round(math.log(max_epochs, factor), 9)
    for iteration in range(iterations):
        for bracket in range(math.floor(steps), -1, -1):
            for number in range(bracket + 1):
                size = math.ceil(math.ceil(1 + steps) / (bracket + 1) * factor ** (bracket - number))
                yield Round(iteration, bracket, number, size, math.ceil(max_epochs / factor ** (bracket - number)))


class HyperbandOracle(SearchOracle):
    """Gives the trials of Hyperband; what each is for stands among its values, so a killed search goes on.

    A failed trial takes its place in a round and is not promoted; the rounds after it go on with those that completed.

    Args:
        max_epochs: The most epochs of a trial.
        factor: How many times fewer trials, and more epochs, each round has.
        hyperband_iterations: How often the plan is gone through.
        arguments: Those of keras-tuner's Oracle.
    """

    def __init__(self, max_epochs: int, factor: int, hyperband_iterations: int, arguments: OracleArguments):
        super().__init__(random_point, arguments)
        self.max_epochs, self.factor = int(max_epochs), int(factor)
        self.plan = list(plan(self.max_epochs, self.factor, hyperband_iterations))

    @property
    def identity(self) -> dict[str, Any]:
        """With other rounds its trials would not fit in."""
        return {**super().identity, "max_epochs": self.max_epochs, "factor": self.factor}

    @property
    def expected_trials(self) -> int:
        """The trials of the whole plan."""
        return sum(each.size for each in self.plan)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial of the first round that is not complete."""
        for each in self.plan:
            begun = self._trials_of(each)
            if len(begun) == each.size:
                continue
            point = self._promoted(each, begun) if each.round else self._fresh()
            if point is not None:
                return {"status": Status.RUNNING, "values": point | _book(each)}
        return {"status": Status.STOPPED}

    def _fresh(self):
        point = self.proposer(self.evidence())
        return None if point is None else point | {"tuner/initial_epoch": 0}

    def _promoted(self, each, begun):
        """The best of the round before that is not promoted yet, as long as it is among the best `size`."""
        before = each._replace(round=each.round - 1)
        rivals = self._trials_of(before)
        completed = [trial for trial in rivals if trial.status == Status.COMPLETED]
        sign = -1.0 if self.objective.direction == "max" else 1.0
        best = sorted(completed, key=lambda trial: sign * trial.score)[: each.size]
        taken = {trial.hyperparameters.values["tuner/trial_id"] for trial in begun}
        parent = next((trial for trial in best if trial.trial_id not in taken), None)
        if parent is None:
            return None
        epochs = parent.hyperparameters.values["tuner/epochs"]
        return parent.hyperparameters.values | {"tuner/trial_id": parent.trial_id, "tuner/initial_epoch": epochs}

    def _trials_of(self, each):
        wanted = {name: value for name, value in _book(each).items() if name != "tuner/epochs"}
        return [trial for trial in self.trials.values() if wanted.items() <= trial.hyperparameters.values.items()]


def _book(each):
    return {
        "tuner/epochs": each.epochs,
        "tuner/iteration": each.iteration,
        "tuner/bracket": each.bracket,
        "tuner/round": each.round,
    }
