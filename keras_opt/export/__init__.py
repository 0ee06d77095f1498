"""Device files: write a .tflite, check it, run it in LiteRT and TFLite Micro, compare, time, turn it into C++."""

from keras_opt.export.interpreter import LiteRTModel as LiteRTModel
from keras_opt.export.latency import Latency as Latency
from keras_opt.export.latency import benchmark as benchmark
from keras_opt.export.metadata import ImageInput as ImageInput
from keras_opt.export.metadata import ModelMetadata as ModelMetadata
from keras_opt.export.metadata import read_labels as read_labels
from keras_opt.export.metadata import read_metadata as read_metadata
from keras_opt.export.predict_script import write_predict_script as write_predict_script
from keras_opt.export.quantization_report import LayerError as LayerError
from keras_opt.export.quantization_report import QuantizationReport as QuantizationReport
from keras_opt.export.quantization_report import quantization_report as quantization_report
from keras_opt.export.run_tflm import TFLMRun as TFLMRun
from keras_opt.export.run_tflm import run_tflm as run_tflm
from keras_opt.export.sidecars import write_sidecars as write_sidecars
from keras_opt.export.sizes import gzip_size as gzip_size
from keras_opt.export.tflite import to_tflite as to_tflite
from keras_opt.export.tflite_export import TFLiteExport as TFLiteExport
from keras_opt.export.to_c_array import CArray as CArray
from keras_opt.export.to_c_array import to_c_array as to_c_array
from keras_opt.export.verification import Verification as Verification
from keras_opt.export.verification import verify as verify
