"""The guards, in the order in which their objections are told. A new guard is one file and one line here.

The order never changes whether a call is allowed: one denial denies, and no denial and one permission allow.
"""

from typing import Final

from rules.guards import (
    account_bound,
    account_known,
    allow_rules,
    batch_opened,
    content_readable,
    definition_pinned,
    deny_rules,
    destination_known,
    limits_told,
    policy_active,
    target_normal,
)
from rules.guards.verdict import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    policy_active.GUARD,
    account_known.GUARD,
    destination_known.GUARD,
    target_normal.GUARD,
    batch_opened.GUARD,
    definition_pinned.GUARD,
    content_readable.GUARD,
    account_bound.GUARD,
    deny_rules.GUARD,
    limits_told.GUARD,
    allow_rules.GUARD,
)
