"""ETPF: pruning functions, the search space that they are written in, and their evolution.

space        formulas and expressions          functions   the seeds, and what the authors evolved
algebra      operators on many channels        scoring     a function and a layer's maps -> scores
readings     where a network shows its maps    features    training data -> what functions are told
baselines    other ways to score               ranking     scores -> the channels that go
method       the pruning method                schedules   how functions are tried on a task
evolution    populations, with DEAP            course      an evolution over cells, kept in a store
command      the evolution on the command line
"""

from slimbench.methods.etpf.method import ETPF

__all__ = ["ETPF"]
commands = {"evolve": "slimbench.methods.etpf.command:evolve"}
