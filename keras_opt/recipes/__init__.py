"""The main job as one call: train, prune, quantize, export, report."""

from keras_opt.recipes.main_job import run as run
from keras_opt.recipes.recipe import Recipe as Recipe
from keras_opt.recipes.result import Result as Result
from keras_opt.recipes.result import SideResult as SideResult
from keras_opt.recipes.search_result import SearchResult as SearchResult
from keras_opt.recipes.search_result import TrialRecord as TrialRecord
from keras_opt.recipes.tune import tune as tune
