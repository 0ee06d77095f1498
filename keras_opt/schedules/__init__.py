"""Learning-rate schedules: serialisable, pure functions of the step."""

from keras_opt.schedules.one_cycle import OneCycle as OneCycle
