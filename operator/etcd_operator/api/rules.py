"""CEL rules that several fields need, built from text.

Pure. A rule that compares parsed values first asks whether they parse: otherwise a typing error in one
field would make the API server complain about the evaluation of another rule as well.
"""

from etcd_operator.api.base import Rule
from etcd_operator.api.units import DURATION_PATTERN


def is_duration(expression: str) -> str:
    """CEL that is true when the text is a duration that this project accepts."""
    return f"{expression}.matches('{DURATION_PATTERN}')"


def is_quantity(expression: str) -> str:
    """CEL that is true when the number or text is a Kubernetes quantity."""
    return f"isQuantity(string({expression}))"


def when_durations(*fields: str, rule: str, message: str) -> Rule:
    """The rule, judged only where all the fields are durations."""
    return Rule(f"!({' && '.join(map(is_duration, fields))}) || {rule}", message)


def when_quantities(*fields: str, rule: str, message: str) -> Rule:
    """The rule, judged only where all the fields are quantities."""
    return Rule(f"!({' && '.join(map(is_quantity, fields))}) || {rule}", message)


def at_least(quantity: str) -> str:
    """CEL that is true when `self` is a quantity of that much or more."""
    return f"{is_quantity('self')} && quantity(string(self)).compareTo(quantity('{quantity}')) >= 0"


def immutable(why: str) -> Rule:
    """A rule for a field that keeps its first value."""
    return Rule("self == oldSelf", f"is immutable: {why}")
