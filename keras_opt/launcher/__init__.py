"""Starts the workers of a training on this machine. Loads neither Keras nor TensorFlow: they would only wait here."""
