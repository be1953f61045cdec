"""Hypothesis for all tests: the same examples in every run, and no limit on the time of one, which is the host's affair."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
