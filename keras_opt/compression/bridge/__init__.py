"""TF-MOT on Keras 3 models, through tf_keras."""
