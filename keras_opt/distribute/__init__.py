"""One model on several devices: strategies under which stock `fit` gives the model of one device."""

from keras_opt.distribute.findings import Finding as Finding
from keras_opt.distribute.place import Placement as Placement
from keras_opt.distribute.place import place as place
from keras_opt.distribute.preflight import preflight as preflight
from keras_opt.distribute.strategy import strategy as strategy
from keras_opt.launcher.launch import WorkerFailure as WorkerFailure
from keras_opt.launcher.launch import WorkersFailed as WorkersFailed
from keras_opt.launcher.launch import launch as launch
