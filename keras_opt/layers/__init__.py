"""Augmentation and dropout layers: in the model, in tf.data, on Keras's dicts and on pairs of images and labels."""

from keras_opt.layers.cut_mix import CutMix as CutMix
from keras_opt.layers.drop_block import DropBlock as DropBlock
from keras_opt.layers.mix_up import MixUp as MixUp
from keras_opt.layers.rand_augment import RandAugment as RandAugment
from keras_opt.layers.random_affine import RandomAffine as RandomAffine
from keras_opt.layers.random_crop import RandomCrop as RandomCrop
from keras_opt.layers.scheduled_dropout import ScheduledDropout as ScheduledDropout
from keras_opt.layers.stochastic_depth import StochasticDepth as StochasticDepth
