"""DASS: cells searched for while their weights are sparse, and scores that say which weights stay.

genotypes    cells as text and as values       cells      operations, and cells of them
networks     cells -> networks                 sparse     layers with scores and masks
search       supernet -> genotype              pruning    scores and then weights are trained
method       the compression method            scores     the same pruning for any network
"""

from slimbench.methods.dass.method import DASS
from slimbench.methods.dass.scores import SparseScores

__all__ = ["DASS", "SparseScores"]
