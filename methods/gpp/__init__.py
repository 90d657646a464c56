"""GPP: a network grows where it is too small, discriminants are pushed onto few neurons, what feeds no other goes.

features         a network -> pre-decision neurons, sample by sample, and their classes
discriminants    samples -> scatters, and what neurons are worth (LDA)
push             samples -> the loss that aligns discriminants with neurons
trace            a network and images -> what made its features (deconvolution)
prune            traced maps -> the channels that go
grow             a network -> one with more modules
method           the pruning methods
"""

from slimbench.methods.gpp.method import GPP, GPPGrown

__all__ = ["GPP", "GPPGrown"]
