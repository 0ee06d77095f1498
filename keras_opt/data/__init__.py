"""Data sets for `fit`: arrays, folders of images, and an embedded slice of Fashion-MNIST."""

from keras_opt.data.arrays import arrays as arrays
from keras_opt.data.augment import augment as augment
from keras_opt.data.fashion_mnist_sample import FASHION_MNIST_CLASSES as FASHION_MNIST_CLASSES
from keras_opt.data.fashion_mnist_sample import load_fashion_mnist_sample as load_fashion_mnist_sample
from keras_opt.data.image_folder import image_folder as image_folder
from keras_opt.data.profile_dataset import profile_dataset as profile_dataset
