"""(4) decide: guards over `(call, facts)`. Denied unless a guard permits and none denies."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Allowed, Decision, Denied, Reason
from rules.guards import GUARDS
from rules.guards.allow_rules import observed_permits
from rules.guards.verdict import Denies, Guard, Permits
from rules.observing import observing

_NOT_ALLOWED = Reason(Code.NOT_ALLOWED, "No rule allows this call.")
_GUARD_FAILED = Reason(Code.GUARD_FAILED, "A check could not be completed.")


def decide(call: Call, facts: Facts, guards: tuple[Guard, ...] = GUARDS) -> Decision:
    """Whether the call may leave, and on which claims. Pure: no I/O, no clock but `facts.now`. Never raises.

    `guards` is for tests that show what each guard is for.
    """
    policy: str | None = None
    permits: Permits | None = None
    observed: tuple[Reason, ...] = ()
    try:
        if facts.policy is not None:
            policy = facts.policy.digest
        for guard in guards:
            verdict = guard.check(call, facts)
            match verdict:
                case None:
                    pass
                case Denies(reasons) if reasons and guard.by_rules and observing(call, facts):
                    observed += reasons
                case Denies(reasons) if reasons:
                    return Denied(reasons, policy)
                case Permits(rules) if rules:
                    permits = permits or verdict
                case _:
                    return Denied((_GUARD_FAILED,), policy)
        if policy is not None and observing(call, facts) and (observed or permits is None):
            seen = observed_permits(call, facts)
            return Allowed(seen.rules, seen.route, seen.claims, policy, seen.body, observed or (_NOT_ALLOWED,))
    # One of the two places with a blanket except (the other is the engine's adapter): whatever goes wrong in a guard, a
    # call that could not be judged is denied. Letting the error out would leave the answer to whoever catches it.
    except Exception:  # noqa: BLE001
        return Denied((_GUARD_FAILED,), policy)
    finally:
        facts.remember(None)
    if permits is None or policy is None:
        return Denied((_NOT_ALLOWED,), policy)
    return Allowed(permits.rules, permits.route, permits.claims, policy, permits.body)
