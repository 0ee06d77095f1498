"""Methods of instances, replaced for a while."""

import pytest

from keras_opt.training.instance_wrappers import InstanceWrappers


class Owner:
    def say(self):
        return "own"


@pytest.fixture
def owner():
    return Owner()


def test_a_wrapper_stands_in_for_the_method_until_it_is_taken_off(owner):
    wrappers, wrapper = InstanceWrappers(), lambda: "wrapped"
    assert not wrappers
    wrappers.put_on(owner, "say", wrapper)
    assert wrappers
    assert owner.say() == "wrapped"
    assert Owner().say() == "own"
    assert wrappers.wrapper_of(owner, "say") is wrapper
    assert wrappers.wrapper_of(Owner(), "say") is None
    assert wrappers.wrapper_of(owner, "sing") is None
    wrappers.take_off()
    wrappers.take_off()
    assert vars(owner) == {}
    assert not wrappers


def test_what_was_on_the_instance_before_comes_back(owner):
    owner.say = before = lambda: "before"
    wrappers = InstanceWrappers()
    wrappers.put_on(owner, "say", lambda: "wrapped")
    wrappers.take_off()
    assert owner.say is before


def test_what_somebody_put_on_meanwhile_stays(owner):
    wrappers = InstanceWrappers()
    wrappers.put_on(owner, "say", lambda: "wrapped")
    owner.say = theirs = lambda: "theirs"
    wrappers.take_off()
    assert owner.say is theirs


def test_wrappers_upon_wrappers_come_off_in_turn(owner):
    wrappers = InstanceWrappers()
    for word in ("first", "second"):
        wrappers.put_on(owner, "say", lambda word=word: word)
    assert owner.say() == "second"
    wrappers.take_off()
    assert vars(owner) == {}
