"""Which objects are of classes of this package."""


def is_own(instance: object) -> bool:
    """Whether the class of `instance` stands in keras_opt; one that a user derives from it does not."""
    return type(instance).__module__.partition(".")[0] == __name__.partition(".")[0]
