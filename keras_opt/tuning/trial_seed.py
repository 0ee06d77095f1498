"""The seeds of trials."""

import numpy as np


def trial_seed(seed: int, trial: int, attempt: int) -> int:
    """The seed of one attempt at one trial, which has nothing to do with those of other trials and other seeds.

    Each trial has its own, so that a search that was killed goes on with the trials that it would have had.

    Args:
        seed: Of the search.
        trial: Its number, from 0.
        attempt: How often it was tried before.
    """
    return int(np.random.SeedSequence([seed, trial, attempt]).generate_state(1)[0] >> 1)
