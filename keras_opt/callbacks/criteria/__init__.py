"""All criteria of early stopping, in one place."""

from keras_opt.callbacks.criteria.divergence import Divergence as Divergence
from keras_opt.callbacks.criteria.generalization_loss import GeneralizationLoss as GeneralizationLoss
from keras_opt.callbacks.criteria.overfit_gap import OverfitGap as OverfitGap
from keras_opt.callbacks.criteria.plateau import Plateau as Plateau
from keras_opt.callbacks.criteria.progress_quotient import ProgressQuotient as ProgressQuotient
from keras_opt.callbacks.criteria.successive_increases import SuccessiveIncreases as SuccessiveIncreases
from keras_opt.callbacks.criteria.target import Target as Target
from keras_opt.callbacks.criteria.time_budget import TimeBudget as TimeBudget
