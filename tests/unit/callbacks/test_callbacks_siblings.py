import keras

from keras_opt.callbacks.siblings import siblings
from keras_opt.training import attach


class Curious(keras.callbacks.Callback):
    def set_model(self, model):
        super().set_model(model)
        self.found = siblings(self)


def model():
    made = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def test_all_callbacks_of_the_list_are_found_in_their_order():
    first, curious, last = keras.callbacks.TerminateOnNaN(), Curious(), keras.callbacks.LambdaCallback()
    keras.callbacks.CallbackList([first, curious, last], model=model())
    assert curious.found == [first, curious, last]


def test_it_works_within_fit_and_lists_what_fit_adds():
    curious = Curious()
    made = model()
    made.fit(keras.ops.ones((2, 1)), keras.ops.ones((2, 1)), callbacks=[curious], verbose=0)
    assert curious.found == [curious, made.history]


def test_it_works_within_attach():
    curious, other = Curious(), keras.callbacks.Callback()
    with attach(model(), other, curious):
        assert curious.found == [other, curious]


def test_another_list_on_the_stack_is_not_taken_for_ones_own():
    curious = Curious()

    class Outer(keras.callbacks.Callback):
        def set_model(self, model):
            curious.set_model(model)

    keras.callbacks.CallbackList([Outer()], model=model())
    assert curious.found is None


def test_without_a_list_there_are_none():
    curious = Curious()
    curious.set_model(model())
    assert curious.found is None
