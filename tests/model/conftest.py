"""Profiles of the model tests: `ci` is deterministic and short; `soak` goes on for long and finds something new.

    MODEL_PROFILE=soak MODEL_EXAMPLES=5000 hack/test model -- -k machine

A failure of `soak` ends with a `reproduce_failure` line that repeats it.
"""

import logging
import os

import structlog
from hypothesis import HealthCheck, Phase, settings

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "2000"))

_BASE = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, report_multiple_bugs=False)
settings.register_profile("ci", _BASE, max_examples=50, stateful_step_count=30, derandomize=True, database=None)
# Shrinking takes longer than finding here: a soak tells the whole story of what it found.
settings.register_profile(
    "soak", _BASE, max_examples=EXAMPLES, stateful_step_count=40, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile(os.environ.get("MODEL_PROFILE", "ci"))

# The operator's log of thousands of rounds would bury what failed.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
