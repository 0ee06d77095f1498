"""Clocks, optional imports and plot axes."""

import time

import pytest

from keras_opt.core.axes import plot_axes
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.optional import require


def test_a_stopwatch_tells_waiting_from_work():
    watch = Stopwatch()
    time.sleep(0.05)
    assert watch.seconds >= 0.05
    assert watch.cpu_seconds < 0.04
    start = time.process_time()
    while time.process_time() - start < 0.02:
        sum(range(1000))
    assert watch.cpu_seconds >= 0.02


def test_require_imports_dotted_names():
    assert require("email.message").__name__ == "email.message"


@pytest.mark.parametrize(("extra", "target"), [(None, "keras_opt"), ("micro", "keras_opt[micro]")])
def test_a_missing_package_is_answered_with_its_pip_line(extra, target):
    with pytest.raises(ImportError) as caught:
        require("no_such_package", extra=extra)
    assert str(caught.value) == (
        "keras_opt needs `no_such_package` for this, which could not be imported (No module named 'no_such_package'). "
        f'Run: pip install "{target}"'
    )


def test_axes_are_made_when_none_are_given_and_kept_when_they_are():
    ax = plot_axes(title="Loss", xlabel="epoch", ylabel="loss")
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("Loss", "epoch", "loss")
    assert plot_axes(ax, title="Other") is ax
    assert ax.get_title() == "Other"
