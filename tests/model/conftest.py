"""Profiles of the model tests: `ci` is deterministic and short; `soak` goes on for long and finds something new.

    MODEL_PROFILE=soak MODEL_EXAMPLES=5000 hack/test model -- -k machine

A failure of `soak` ends with a `reproduce_failure` line that repeats it.
"""

import logging
import os

import structlog
from hypothesis import HealthCheck, Phase, settings

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "2000"))

_BASE = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
    # Shrinking takes many times longer than finding here: the whole story of what was found is told instead.
    phases=(Phase.explicit, Phase.generate),
)
settings.register_profile("ci", _BASE, max_examples=400, stateful_step_count=30, derandomize=True, database=None)
settings.register_profile("soak", _BASE, max_examples=EXAMPLES, stateful_step_count=40)
settings.load_profile(os.environ.get("MODEL_PROFILE", "ci"))

# The operator's log of thousands of rounds would bury what failed.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
