"""Norms and histograms of gradients as TensorBoard reads them."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_opt.callbacks.backup.event_files import cut_event_files, event_file_lengths
from keras_opt.training.norm_recorder import Recorded

_SUFFIX = ".gradients.v2"  # a writer of the user's own may share the folder

_HISTOGRAM = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="histograms"),
)


class GradientEvents:
    """Writes an event file in `log_dir`: scalars for every recorded update, and histograms.

    The tags are `grad_norm`, `grad_norm/<layer>`, `update_ratio`, `update_ratio/<layer>` and `gradients/<layer>`; the
    step is the update's number.
    """

    def __init__(self, log_dir: str | os.PathLike):
        self._log_dir = os.fspath(log_dir)
        self._writer = tf.summary.create_file_writer(self._log_dir, filename_suffix=_SUFFIX)

    def add_scalars(self, recorded: Recorded) -> None:
        """One event for each update, with all its scalars: the quickest way that `tf.summary` has."""
        tags = ["grad_norm", *[f"grad_norm/{layer}" for layer in recorded.layers]]
        values = [recorded.global_norm[:, None], recorded.norms]
        if recorded.ratios is not None:
            tags += ["update_ratio", *[f"update_ratio/{layer}" for layer in recorded.layers]]
            values += [recorded.global_ratio[:, None], recorded.ratios]
        with self._writer.as_default():
            for step, row in zip(recorded.step.tolist(), np.concatenate(values, axis=1).tolist(), strict=True):
                pairs = zip(tags, row, strict=True)
                entries = [tf.compat.v1.Summary.Value(tag=tag, simple_value=value) for tag, value in pairs]
                summary = tf.compat.v1.Summary(value=entries)
                tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)

    def add_histograms(self, step: int, buckets: Mapping[str, np.ndarray]) -> None:
        """One histogram for each layer, given as rows of left edge, right edge and count."""
        with self._writer.as_default():
            for layer, rows in buckets.items():
                tf.summary.write(f"gradients/{layer}", tf.constant(rows, tf.float64), step=step, metadata=_HISTOGRAM)
        self._writer.flush()

    def state_dict(self) -> dict[str, Any]:
        """The lengths of the event files, with all that was written so far."""
        self._writer.flush()
        return {"lengths": event_file_lengths(self._log_dir, _SUFFIX)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take out of the event files what was written since `state_dict` was called: it is written again."""
        cut_event_files(self._log_dir, state["lengths"], is_open=True, suffix=_SUFFIX)

    def close(self) -> None:
        """Write what is left and close the file."""
        self._writer.close()
