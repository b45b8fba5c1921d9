"""Profiles of the model tests: `ci` is deterministic and short, `soak` goes on for long and finds something new.

Choose by the environment: `MODEL_PROFILE=soak hack/test model`.
"""

import logging
import os

import structlog
from hypothesis import HealthCheck, Phase, settings

_ALWAYS = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}

settings.register_profile("ci", max_examples=60, stateful_step_count=30, derandomize=True, database=None, **_ALWAYS)
settings.register_profile(
    "soak",
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "3000")),
    stateful_step_count=60,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink),
    **_ALWAYS,
)
settings.register_profile(
    "quick", max_examples=int(os.environ.get("MODEL_EXAMPLES", "60")), stateful_step_count=30, report_multiple_bugs=False, phases=(Phase.generate,), **_ALWAYS
)
settings.load_profile(os.environ.get("MODEL_PROFILE", "ci"))

# The operator's log of thousands of rounds would bury what failed.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
