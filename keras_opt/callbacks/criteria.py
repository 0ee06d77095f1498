"""All criteria of early stopping, in one place."""

from keras_opt.callbacks.divergence import Divergence as Divergence
from keras_opt.callbacks.generalization_loss import GeneralizationLoss as GeneralizationLoss
from keras_opt.callbacks.overfit_gap import OverfitGap as OverfitGap
from keras_opt.callbacks.plateau import Plateau as Plateau
from keras_opt.callbacks.progress_quotient import ProgressQuotient as ProgressQuotient
from keras_opt.callbacks.successive_increases import SuccessiveIncreases as SuccessiveIncreases
from keras_opt.callbacks.target import Target as Target
from keras_opt.callbacks.time_budget import TimeBudget as TimeBudget
