"""What happens in the compiled step: the hub that hooks a stock `fit`, and the plugins that act in it."""

from keras_opt.training.attach import attach as attach
from keras_opt.training.step_hooks import StepHooks as StepHooks
from keras_opt.training.step_plugin import StepPlugin as StepPlugin
