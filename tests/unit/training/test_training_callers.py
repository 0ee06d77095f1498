"""Who is training a model, asked on the stack."""

import keras
from line_model import ONES, line

from keras_opt.training.callers import Training, is_called_by_evaluation, is_training


def call(function):
    """A callback that calls a function as training begins, and as a validation begins."""
    return keras.callbacks.LambdaCallback(on_train_begin=lambda logs: function(), on_test_begin=lambda logs: function())


def test_a_model_is_trained_by_its_own_fit_and_evaluated_by_its_own_evaluation():
    model, other, seen = line(), line(), []

    def look():
        seen.append([(is_training(one), is_called_by_evaluation(one)) for one in (model, other)])

    model.fit(ONES, ONES, validation_data=(ONES, ONES), verbose=0, callbacks=[call(look)])
    model.evaluate(ONES, ONES, verbose=0, callbacks=[call(look)])
    look()
    no = (False, False)
    assert seen == [[(True, False), no], [(True, True), no], [(False, True), no], [no, no]]


def test_a_training_is_over_when_its_fit_is_whoever_trains_next(collect_garbage):
    model, made, seen = line(), [], []

    def look():
        if not made:
            made.append(Training(model))
        seen.append(made[0].is_running())

    model.fit(ONES, ONES, validation_data=(ONES, ONES), verbose=0, callbacks=[call(look)])
    look()
    model.fit(ONES, ONES, verbose=0, callbacks=[call(look)])
    assert seen == [True, True, False, False]
    collect_garbage()
    assert made[0]._callbacks() is None, "it holds nothing of the fit"


def test_outside_of_a_fit_any_training_of_the_model_counts():
    model, other, seen = line(), line(), []
    training = Training(model)
    for one in (model, other):
        one.fit(ONES, ONES, verbose=0, callbacks=[call(lambda: seen.append(training.is_running()))])
    assert seen == [True, False]
    assert not training.is_running()


def test_a_fit_within_a_fit_leaves_the_outer_one_running():
    model, made, seen = line(), [], []

    def look():
        seen.append([training.is_running() for training in made])

    def begin():
        made.append(Training(model))
        if len(made) == 1:
            model.fit(ONES, ONES, verbose=0, callbacks=[call(begin)])
        look()

    model.fit(ONES, ONES, verbose=0, callbacks=[call(begin)])
    assert seen == [[True, True], [True, False]]
