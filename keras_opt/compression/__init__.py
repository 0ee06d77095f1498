"""Smaller models, inside stock `model.fit`."""

from keras_opt.compression.distill import cache_teacher as cache_teacher
from keras_opt.compression.distill import distill as distill
from keras_opt.compression.prune_low_magnitude import PruneLowMagnitude as PruneLowMagnitude
from keras_opt.compression.sparsity import sparsity as sparsity
from keras_opt.compression.sparsity_schedules import ConstantSparsity as ConstantSparsity
from keras_opt.compression.sparsity_schedules import PolynomialSparsity as PolynomialSparsity
