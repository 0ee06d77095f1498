"""The main job as one call: train, prune, quantize, export, report."""

from keras_opt.recipes.main_job import run as run
from keras_opt.recipes.recipe import Recipe as Recipe
from keras_opt.recipes.result import Result as Result
from keras_opt.recipes.result import SideResult as SideResult
