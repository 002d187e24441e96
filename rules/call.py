"""What is judged: a call in its normalised form, and the facts around it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from credentials.principal import Principal
from rules.content.content import Content, Value
from rules.swift import swift

if TYPE_CHECKING:
    from rules.action import Action
    from rules.conditions.together import Together
    from rules.policy.compile import Connection, TenantPolicy


@swift
@dataclass(frozen=True, slots=True)
class Call:
    """One request of one agent, after admission: who does what to what. Normalised forms only."""

    id: str
    """`c_` and 22 characters; unique over all installations."""
    principal: Principal
    scheme: str
    """`https` or `http`."""
    host: str
    """Lower-case A-label name without a trailing dot, or an IP literal without brackets."""
    port: int
    method: str
    """Upper-case token."""
    path: str
    """Normalised absolute path, percent-encoded as it will be sent."""
    query: str
    """As it will be sent, without the question mark."""


@swift
@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a guard may look at beyond the call itself. No I/O hides behind any of it."""

    policy: "TenantPolicy | None"
    """The active policy of the call's tenant; None when there is none."""
    connection: "Connection | None"
    """The tenant's connection that this destination belongs to; None when it belongs to none."""
    now: datetime
    """Aware UTC; the one clock reading this call is judged by."""
    content: Content | None = None
    """What the body says; None where it was not read. A rule that needs it then cannot be told, and fails closed."""
    unreadable: str | None = None
    """Why the body cannot be understood, where a rule needs it to be; None otherwise."""
    actions: "tuple[Action, ...]" = ()
    """What the call asks for; empty where it was not classified. Each of them has to be allowed."""
    changed: frozenset[str] = frozenset()
    """Tools of the call whose definition is another than the one that was accepted."""
    asked: bool = False
    """Whether the service was asked for what the request does not say."""
    found: Value = None
    """What the service answered to a lookup; None where there was none, or it failed."""
    together: "Together | None" = field(default=None, init=False, repr=False, compare=False)
    """What conditions were told last, while a decision is made: no fact of its own, and not in a copy."""

    def remember(self, together: "Together | None") -> None:
        """What conditions are told next is told from there; None: nothing of the call is kept for them any longer."""
        object.__setattr__(self, "together", together)

    def asking_for(self, actions: "tuple[Action, ...]") -> "Facts":
        """The same, with what the call asks for. By hand, because every call is classified: `replace` takes longer than
        the rules do."""
        return Facts(
            self.policy,
            self.connection,
            self.now,
            self.content,
            self.unreadable,
            actions,
            self.changed,
            self.asked,
            self.found,
        )
