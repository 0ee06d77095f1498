"""Smaller models, inside stock `model.fit`."""

from keras_opt.compression.bridge.copy_weights_back import copy_weights_back as copy_weights_back
from keras_opt.compression.bridge.for_tf_keras import for_tf_keras as for_tf_keras
from keras_opt.compression.bridge.tfmot_cluster import tfmot_cluster as tfmot_cluster
from keras_opt.compression.bridge.tfmot_prune import tfmot_prune as tfmot_prune
from keras_opt.compression.bridge.tfmot_quantize import tfmot_quantize as tfmot_quantize
from keras_opt.compression.bridge.to_tf_keras import to_tf_keras as to_tf_keras
from keras_opt.compression.channels.prune_channels import prune_channels as prune_channels
from keras_opt.compression.distillation.distill import cache_teacher as cache_teacher
from keras_opt.compression.distillation.distill import distill as distill
from keras_opt.compression.pruning.prune_low_magnitude import PruneLowMagnitude as PruneLowMagnitude
from keras_opt.compression.pruning.sparsity import sparsity as sparsity
from keras_opt.compression.pruning.sparsity_schedules import ConstantSparsity as ConstantSparsity
from keras_opt.compression.pruning.sparsity_schedules import PolynomialSparsity as PolynomialSparsity
from keras_opt.compression.qat.quantize_aware import quantize_aware as quantize_aware
from keras_opt.compression.search.compress import compress as compress
from keras_opt.compression.search.recipe import CompressionRecipe as CompressionRecipe
from keras_opt.compression.search.result import Candidate as Candidate
from keras_opt.compression.search.result import CompressionResult as CompressionResult
