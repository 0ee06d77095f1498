"""A Ctrl-C ends the training, or does not: whoever handled it before decides."""

import signal
import threading

import pytest

from keras_opt.training.interrupt import Interrupt


@pytest.fixture(autouse=True)
def python_own_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler from before is back"
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def interrupt(calls):
    interrupt = Interrupt(lambda: calls.append("interrupted"))
    interrupt.arm()
    yield interrupt
    interrupt.disarm()


def test_a_ctrl_c_calls_the_function_and_goes_on(interrupt, calls):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert calls == ["interrupted"]


def test_disarmed_it_is_as_if_it_had_never_been(interrupt, calls):
    interrupt.disarm()
    interrupt.disarm()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert calls == []


def test_a_handler_that_returns_lets_the_training_run(calls):
    signal.signal(signal.SIGINT, lambda number, frame: calls.append("flag"))
    interrupt = Interrupt(lambda: calls.append("interrupted"))
    interrupt.arm()
    signal.raise_signal(signal.SIGINT)
    interrupt.disarm()
    signal.raise_signal(signal.SIGINT)
    assert calls == ["flag", "flag"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_handler_that_took_over_later_keeps_sigint(calls):
    interrupt = Interrupt(lambda: calls.append("interrupted"))
    interrupt.arm()
    armed = signal.getsignal(signal.SIGINT)

    def later(number, frame):
        calls.append("later")
        armed(number, frame)

    signal.signal(signal.SIGINT, later)
    interrupt.disarm()
    assert signal.getsignal(signal.SIGINT) is later
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert calls == ["later"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_interrupts_armed_one_upon_the_other_can_be_disarmed_in_any_order(order, calls):
    interrupts = [Interrupt(lambda name=name: calls.append(name)) for name in range(3)]
    for interrupt in interrupts:
        interrupt.arm()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert calls == [0, 1, 2]
    for place in order:
        interrupts[place].disarm()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_an_ignored_ctrl_c_stays_ignored(before, calls):
    signal.signal(signal.SIGINT, before)
    interrupt = Interrupt(lambda: calls.append("interrupted"))
    interrupt.arm()
    assert signal.getsignal(signal.SIGINT) == before
    interrupt.disarm()
    assert signal.getsignal(signal.SIGINT) == before
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_outside_of_the_main_thread_it_does_nothing(calls):
    def arm_and_disarm():
        interrupt = Interrupt(lambda: calls.append("interrupted"))
        interrupt.arm()
        calls.append(signal.getsignal(signal.SIGINT))
        interrupt.disarm()

    thread = threading.Thread(target=arm_and_disarm)
    thread.start()
    thread.join()
    assert calls == [signal.default_int_handler]
