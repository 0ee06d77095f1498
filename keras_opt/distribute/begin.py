"""What is done where a `fit` or an `evaluate` under the process's strategy begins."""

import tensorflow as tf

from keras_opt.callbacks.backup.chief_files import leave_files_to_chief
from keras_opt.distribute.beginning import Beginning
from keras_opt.distribute.even_batches import even_batches
from keras_opt.distribute.preflight import check_beginning
from keras_opt.distribute.refusals import check_model, check_workers


def begin(beginning: Beginning) -> tf.data.Dataset | None:
    """Refuse what would train wrong; the dataset to take."""
    check_model(beginning.model, beginning.is_training)
    check_beginning(beginning)
    if beginning.dataset is not None:
        check_workers(beginning)
    leave_files_to_chief(beginning.model)
    return even_batches(beginning)
