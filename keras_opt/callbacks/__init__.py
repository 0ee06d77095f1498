"""Callbacks for stock `model.fit`: they say when."""

from keras_opt.callbacks.backup_and_restore import BackupAndRestore as BackupAndRestore
from keras_opt.callbacks.criteria import Divergence as Divergence
from keras_opt.callbacks.criteria import GeneralizationLoss as GeneralizationLoss
from keras_opt.callbacks.criteria import OverfitGap as OverfitGap
from keras_opt.callbacks.criteria import Plateau as Plateau
from keras_opt.callbacks.criteria import ProgressQuotient as ProgressQuotient
from keras_opt.callbacks.criteria import SuccessiveIncreases as SuccessiveIncreases
from keras_opt.callbacks.criteria import Target as Target
from keras_opt.callbacks.criteria import TimeBudget as TimeBudget
from keras_opt.callbacks.early_stopping import EarlyStopping as EarlyStopping
from keras_opt.callbacks.find_learning_rate import find_learning_rate as find_learning_rate
from keras_opt.callbacks.gradient_accumulation import GradientAccumulation as GradientAccumulation
from keras_opt.callbacks.gradient_clipping import GradientClipping as GradientClipping
from keras_opt.callbacks.gradient_monitor import GradientMonitor as GradientMonitor
from keras_opt.callbacks.gradual_unfreezing import GradualUnfreezing as GradualUnfreezing
from keras_opt.callbacks.learning_rate_monitor import LearningRateMonitor as LearningRateMonitor
from keras_opt.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
from keras_opt.callbacks.progress_bar import ProgressBar as ProgressBar
from keras_opt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau as ReduceLROnPlateau
from keras_opt.callbacks.schedule_learning_rate import ScheduleLearningRate as ScheduleLearningRate
from keras_opt.callbacks.sharpness_aware_minimization import SharpnessAwareMinimization as SharpnessAwareMinimization
from keras_opt.callbacks.sparse_gradient_fix import SparseGradientFix as SparseGradientFix
from keras_opt.callbacks.suggest_patience import suggest_patience as suggest_patience
from keras_opt.callbacks.weight_averaging import WeightAveraging as WeightAveraging
