"""Hypothesis for the unit tests: a busy machine makes an example slow, not wrong."""

from hypothesis import settings

settings.register_profile("rejoin", deadline=None)
settings.load_profile("rejoin")
