"""What happens in the compiled step: the hub that hooks a stock optimizer, and the recorders that plug into it."""

from keras_opt.training.attach import attach as attach
from keras_opt.training.step_hooks import StepHooks as StepHooks
