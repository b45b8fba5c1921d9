"""The same examples in every run: what a change broke must not depend on the day."""

from hypothesis import settings

settings.register_profile("ci", derandomize=True, database=None, deadline=None)
settings.load_profile("ci")
