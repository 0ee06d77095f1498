"""Predictions in the order of the rows."""

from typing import Any

import tensorflow as tf

from keras_opt.core.errors import InputError

_POLICY = tf.data.experimental.AutoShardPolicy


def in_order(dataset: Any) -> Any:
    """`dataset`, of which several workers take shares of each batch, so that predictions come in the order of its rows.

    AUTO, the default, would give each worker files of its own where the data are read from files.

    Raises:
        ValueError: The policy is another one than AUTO and DATA.
    """
    if not isinstance(dataset, tf.data.Dataset):
        return dataset  # the caller has distributed it
    policy = dataset.options().experimental_distribute.auto_shard_policy
    if policy not in (_POLICY.AUTO, _POLICY.DATA):
        raise InputError(
            f"predict: the dataset has AutoShardPolicy.{policy.name}, by which the workers read rows of their own, so "
            "predictions would not stand in the order of the rows. Leave the policy at AUTO or DATA."
        )
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = _POLICY.DATA
    return dataset.with_options(options)
