"""Callbacks for stock `model.fit`: they say when."""

from keras_opt.callbacks.criteria import Plateau as Plateau
from keras_opt.callbacks.criteria import Target as Target
from keras_opt.callbacks.early_stopping import EarlyStopping as EarlyStopping
from keras_opt.callbacks.gradient_monitor import GradientMonitor as GradientMonitor
from keras_opt.callbacks.learning_rate_monitor import LearningRateMonitor as LearningRateMonitor
from keras_opt.callbacks.progress_bar import ProgressBar as ProgressBar
