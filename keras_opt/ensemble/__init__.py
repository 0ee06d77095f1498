"""Several models as one: their predictions averaged, or their weights."""

from keras_opt.ensemble.average_weights import average_weights as average_weights
from keras_opt.ensemble.diversity import Diversity as Diversity
from keras_opt.ensemble.diversity import diversity as diversity
from keras_opt.ensemble.greedy_soup import Soup as Soup
from keras_opt.ensemble.greedy_soup import greedy_soup as greedy_soup
from keras_opt.ensemble.prediction_ensemble import PredictionEnsemble as PredictionEnsemble
from keras_opt.ensemble.snapshot_ensemble import SnapshotEnsemble as SnapshotEnsemble
from keras_opt.ensemble.train_ensemble import train_ensemble as train_ensemble
