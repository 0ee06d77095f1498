"""The report page and the model card of a run, made from plain data alone."""

from keras_opt.report.inputs import Bar as Bar
from keras_opt.report.inputs import Chart as Chart
from keras_opt.report.inputs import ConfusionMatrix as ConfusionMatrix
from keras_opt.report.inputs import Curve as Curve
from keras_opt.report.inputs import KeyNumber as KeyNumber
from keras_opt.report.inputs import Line as Line
from keras_opt.report.inputs import Mistake as Mistake
from keras_opt.report.inputs import Report as Report
from keras_opt.report.inputs import Table as Table
from keras_opt.report.model_card import ModelCard as ModelCard
from keras_opt.report.model_card import write_model_card as write_model_card
from keras_opt.report.page import write_report as write_report
from keras_opt.report.scores import ClassScores as ClassScores
from keras_opt.report.scores import class_scores as class_scores
