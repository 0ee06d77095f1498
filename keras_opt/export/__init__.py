"""Device files: write a .tflite, check it, run it in LiteRT, compare it with its model, time it."""

from keras_opt.export.interpreter import LiteRTModel as LiteRTModel
from keras_opt.export.latency import Latency as Latency
from keras_opt.export.latency import benchmark as benchmark
from keras_opt.export.metadata import read_labels as read_labels
from keras_opt.export.metadata import read_metadata as read_metadata
from keras_opt.export.predict_script import write_predict_script as write_predict_script
from keras_opt.export.sizes import gzip_size as gzip_size
from keras_opt.export.tflite import TFLiteExport as TFLiteExport
from keras_opt.export.tflite import to_tflite as to_tflite
from keras_opt.export.verification import Verification as Verification
from keras_opt.export.verification import verify as verify
