"""Rounds: the compared things are measured alternately, so that disturbances of the machine hit all alike. A
result is a ratio within a round, given as median and quartiles over the rounds."""

import collections
import statistics

Spread = collections.namedtuple("Spread", "median low high")


def spread(values):
    """Median and quartiles."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def interleaved(rounds, kinds):
    """Calls each of KINDS, name -> function, once in every round, every other round in the opposite
    order; returns what they returned, name -> list."""
    results = {name: [] for name in kinds}
    for number in range(rounds):
        for name in list(kinds)[::-1 if number % 2 else 1]:
            results[name].append(kinds[name]())
    return results


def ratios(values, base):
    """The ratio of each value to that of the same round in BASE."""
    return [value / other for value, other in zip(values, base)]
