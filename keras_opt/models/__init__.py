"""Model builders with BatchNorm, and tools for the models they build."""

from keras_opt.models.add_regularization import add_regularization as add_regularization
from keras_opt.models.convnet import convnet as convnet
from keras_opt.models.exclude_norm_and_bias_from_decay import (
    exclude_norm_and_bias_from_decay as exclude_norm_and_bias_from_decay,
)
from keras_opt.models.finetune import finetune as finetune
from keras_opt.models.fold_batch_norm import fold_batch_norm as fold_batch_norm
from keras_opt.models.freeze_batch_norm import freeze_batch_norm as freeze_batch_norm
from keras_opt.models.macs import macs as macs
from keras_opt.models.mlp import mlp as mlp
from keras_opt.models.mobilenet import mobilenet as mobilenet
from keras_opt.models.reestimate_batch_norm import reestimate_batch_norm as reestimate_batch_norm
from keras_opt.models.resnet import resnet as resnet
from keras_opt.models.set_dropout import set_dropout as set_dropout
from keras_opt.models.synchronize_batch_norm import synchronize_batch_norm as synchronize_batch_norm
