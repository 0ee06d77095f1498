"""Model builders with BatchNorm, and tools for the models they build."""

from keras_opt.models.convnet import convnet as convnet
from keras_opt.models.fold_batch_norm import fold_batch_norm as fold_batch_norm
from keras_opt.models.macs import macs as macs
from keras_opt.models.reestimate_batch_norm import reestimate_batch_norm as reestimate_batch_norm
