"""Learning-rate schedules: serialisable, pure functions of the step (the optimizer's updates, from 0).

Keras's own schedules are here too, as they are; `plot` draws any of them.
"""

from keras.optimizers.schedules import CosineDecay as CosineDecay
from keras.optimizers.schedules import CosineDecayRestarts as CosineDecayRestarts
from keras.optimizers.schedules import ExponentialDecay as ExponentialDecay
from keras.optimizers.schedules import InverseTimeDecay as InverseTimeDecay
from keras.optimizers.schedules import PiecewiseConstantDecay as PiecewiseConstantDecay
from keras.optimizers.schedules import PolynomialDecay as PolynomialDecay

from keras_opt.schedules.cyclical_learning_rate import CyclicalLearningRate as CyclicalLearningRate
from keras_opt.schedules.inverse_sqrt_decay import InverseSqrtDecay as InverseSqrtDecay
from keras_opt.schedules.joined_schedule import JoinedSchedule as JoinedSchedule
from keras_opt.schedules.one_cycle import OneCycle as OneCycle
from keras_opt.schedules.plot import plot as plot
from keras_opt.schedules.scaled_schedule import ScaledSchedule as ScaledSchedule
from keras_opt.schedules.step_decay import StepDecay as StepDecay
from keras_opt.schedules.warm_up import WarmUp as WarmUp
