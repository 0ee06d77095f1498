"""Points of a space as rows of numbers in [0, 1], and back."""

import numpy as np

from keras_opt.tuning.space import Point, Space, all_values, is_active, is_free, is_ordered, place, value_at

_INACTIVE = 0.5
_MOST_LEVELS = 1000  # with more values a number counts as a continuum
_CATEGORIES = 3  # from so many values on an unordered choice takes one feature a value


class Encoding:
    """One column a parameter: numbers by their sampling, so that a rate with sampling="log" is in log space.

    What has few values (whole numbers, choices) has levels, and a row takes the nearest (`snap`). A parameter that is
    not active stands at 0.5. A model sees `features`: no fixed parameter, and one column a value of unordered choices.
    """

    def __init__(self, space: Space):
        self.space = space
        self.values = [_few_values(parameter) for parameter in space]
        self.levels = [
            None if values is None else np.array([place(parameter, value) for value in values])
            for parameter, values in zip(space, self.values, strict=True)
        ]
        self.parents = [[self._parent(condition) for condition in parameter.conditions] for parameter in space]
        free = np.array([is_free(parameter) for parameter in space], bool)
        ordered = np.array([is_ordered(parameter) for parameter in space], bool)
        counts = np.array([0 if levels is None else len(levels) for levels in self.levels])
        self.ordered = free & ordered
        self.widths = np.where(free, np.where(~ordered & (counts >= _CATEGORIES), counts, 1), 0)
        self.feature_columns = np.cumsum(self.widths) - self.widths  # where the features of each parameter begin

    def _parent(self, condition):
        """The columns that may meet a condition, and the levels that do: none of a continuum."""
        columns = [column for column, parameter in enumerate(self.space) if parameter.name == condition.name]
        columns = [column for column in columns if self.values[column] is not None]
        meets = [[condition.is_active({condition.name: value}) for value in self.values[column]] for column in columns]
        return [(column, self.levels[column][met]) for column, met in zip(columns, meets, strict=True)]

    def row(self, point: Point) -> np.ndarray:
        """The row of a point, which may lack parameters that were not known when it was tried."""
        there = [parameter.name in point and is_active(parameter, point) for parameter in self.space]
        return np.array(
            [
                place(parameter, point[parameter.name]) if known else _INACTIVE
                for parameter, known in zip(self.space, there, strict=True)
            ]
        )

    def point(self, row: np.ndarray) -> Point:
        """The point of a snapped row."""
        point: Point = {}
        for parameter, values, levels, at in zip(self.space, self.values, self.levels, row, strict=True):
            if is_active(parameter, point):
                at = float(at)
                point[parameter.name] = (
                    value_at(parameter, at) if values is None else values[int(np.abs(levels - at).argmin())]
                )
        return point

    def snap(self, rows: np.ndarray) -> np.ndarray:
        """The nearest rows that are points."""
        rows = np.array(rows, float)
        for column, levels in enumerate(self.levels):
            if levels is not None:
                rows[:, column] = levels[np.abs(rows[:, column, None] - levels).argmin(1)]
        return np.where(self.active(rows), rows, _INACTIVE)

    def active(self, rows: np.ndarray) -> np.ndarray:
        """Which parameters of rows at levels are active."""
        active = np.ones(rows.shape, bool)
        for column, conditions in enumerate(self.parents):
            for parents in conditions:
                met = [active[:, parent] & np.isin(rows[:, parent], levels) for parent, levels in parents]
                active[:, column] &= np.any(met, axis=0)
        return active

    def features(self, rows: np.ndarray) -> np.ndarray:
        """What a model sees of rows."""
        columns = [
            np.isclose(rows[:, [column]], self.levels[column]).astype(float) if width > 1 else rows[:, [column]]
            for column, width in enumerate(self.widths)
            if width
        ]
        return np.concatenate(columns, 1)


def _few_values(parameter):
    values = all_values(parameter)
    is_too_many = hasattr(parameter, "min_value") and values is not None and len(values) > _MOST_LEVELS
    return None if is_too_many else values
