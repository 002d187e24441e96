"""The steps of an authority's life as operators take them, and those the process takes by itself when time runs out."""

import base64
import hashlib
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.authorities import Authorities, RotationRefused
from control.authority_views import AuthoritiesShown, AuthorityShown, RotationAsked, Step
from control.operations import Refused, WrongUse
from control.state import State
from credentials.actor import SYSTEM, Actor
from proxy.engine.authority import Permitted, TooManyNames, permitted_by
from rules.policy.compile import PolicySet
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid

if TYPE_CHECKING:
    from control.node import Node

logger = logging.getLogger("exeat.authority")

WARNING: Final = timedelta(days=30)
"""Left: everything that shows the authority warns, and an overlap begins by itself."""
LAST_MOMENT: Final = timedelta(days=3)
"""Left: whoever has not been given the next one by now loses nothing by the switch that expiry would not take."""
ALWAYS_PERMITTED: Final = "exeat.invalid"
"""RFC 2606: nobody's name. `exeat doctor` asks the gate for a host below it."""


def policy_hosts(policy: PolicySet | None) -> tuple[str, ...]:
    """Every host a TLS connection of the policy leads to, of all tenants."""
    if policy is None:
        return ()
    hosts = {
        connection.host
        for tenant in policy.tenants.values()
        for connection in tenant.connections.values()
        if connection.scheme == "https"
    }
    return tuple(sorted(hosts))


def outside(permitted: Permitted | None, hosts: Iterable[str]) -> tuple[str, ...]:
    """Those hosts that the authority may not vouch for."""
    return () if permitted is None else tuple(host for host in hosts if not permitted.admits(host))


def show(authorities: Authorities, policy: PolicySet | None, done: str = "") -> AuthoritiesShown:
    """Everything there is to know about them; none of it is secret."""
    roles = ["signing"] + ["next"] * (authorities.next is not None) + ["previous"] * (authorities.previous is not None)
    shown = (_shown(role, found) for role, found in zip(roles, authorities.trusted, strict=True))
    return AuthoritiesShown(tuple(shown), outside(authorities.active.permitted, policy_hosts(policy)), done)


def take(step: RotationAsked, state: State, actor: Actor, node: "Node | None") -> AuthoritiesShown:
    """The step is on record and done, in force in the running process too. Raises `Refused` and `WrongUse`."""
    try:
        if step.step is Step.CREATE:
            permitted = _permitted(step, state.policy, ())
            if Authorities.exist(state.keys):
                raise RotationRefused("there is an authority already", "Replace it with overlap: exeat ca rotate")
            state.record_act(actor, "authority.create", {"permitted": _noted(permitted)})
            return show(Authorities.create(state.keys, permitted), state.policy, "created")
        authorities = Authorities.open(state.keys) if node is None else node.authorities
        return show(authorities, state.policy, _do(step, authorities, state, actor, node))
    except RotationRefused as refused:
        raise Refused(str(refused), refused.cure) from refused
    except TooManyNames as error:
        raise Refused(str(error)) from error


def _do(step: RotationAsked, authorities: Authorities, state: State, actor: Actor, node: "Node | None") -> str:
    own = () if node is None else node.own_names
    match step.step:
        case Step.BEGIN:
            if authorities.next is not None:
                authorities.begin(None)  # refuses, and says why
            permitted = _permitted(step, state.policy, own)
            state.record_act(actor, "authority.begin", {"permitted": _noted(permitted)})
            made = authorities.begin(permitted)
            return f"a next authority is handed out from now on: {_fingerprint(made.certificate)[:16]}"
        case Step.SWITCH:
            _check_switch(step, authorities, own)
            switch(authorities, state, actor, node)
            return "the next authority signs; the key of the one before is destroyed"
        case Step.CANCEL:
            if authorities.next is None:
                authorities.cancel()
            state.record_act(actor, "authority.cancel", {})
            authorities.cancel()
            return "the next authority was dropped"
        case _:
            if authorities.previous is None:
                authorities.finish()
            state.record_act(actor, "authority.finish", {})
            authorities.finish()
            return "the previous authority is handed out no more"


def switch(authorities: Authorities, state: State, actor: Actor, node: "Node | None") -> None:
    """The next authority signs, here and in the gate; it was recorded first."""
    following = authorities.next
    if following is None:
        raise RotationRefused("no rotation has begun", "Begin: exeat ca rotate")
    detail = {"from": _fingerprint(authorities.active.certificate), "to": _fingerprint(following.certificate)}
    state.record_act(actor, "authority.switch", detail)
    authorities.switch()
    if node is not None:
        node.sign_with(authorities.active)


def tend(authorities: Authorities, state: State, node: "Node") -> None:
    """What must not wait for an operator is done: an overlap begun, an authority about to expire replaced."""
    now = datetime.now(UTC)
    left = authorities.active.expires_at - now
    if left < WARNING and authorities.next is None:
        state.record_act(SYSTEM, "authority.begin", {"permitted": _noted(authorities.active.permitted)})
        authorities.begin(authorities.active.permitted)
        logger.warning("the authority expires in %d days; the next one is handed out from now on", left.days)
    elif left < LAST_MOMENT and authorities.next is not None:
        switch(authorities, state, SYSTEM, node)
        logger.warning("the authority was about to expire: the next one signs now")
    elif left < WARNING:
        logger.warning(
            "the authority expires in %d days; when agents trust the next: exeat ca rotate --switch", left.days
        )
    if authorities.previous is not None and authorities.previous.not_valid_after_utc <= now:
        state.record_act(SYSTEM, "authority.finish", {})
        authorities.finish()


def _check_switch(step: RotationAsked, authorities: Authorities, own: tuple[str, ...]) -> None:
    following = authorities.next
    if following is None:
        raise RotationRefused("no rotation has begun", "Begin: exeat ca rotate")
    if missing := outside(following.permitted, own):
        raise RotationRefused(
            f"the next authority may not vouch for this gate's own {', '.join(missing)}",
            "Drop it and begin anew: exeat ca rotate --cancel, then exeat ca rotate --constrain",
        )
    waited = datetime.now(UTC) - following.made_at
    wanted = timedelta(seconds=step.overlap_seconds)
    if waited < wanted and not step.now:
        left = wanted - waited
        raise RotationRefused(
            f"the next authority has been handed out for {_span(waited)} of {_span(wanted)}: agents and relays that "
            "were started before do not trust it yet, and every call of theirs would fail",
            f"Wait {_span(left)}; or restart them all and say --now.",
        )


def _permitted(step: RotationAsked, policy: PolicySet | None, own: tuple[str, ...]) -> Permitted | None:
    if not step.constrain and not step.permit:
        return None
    if step.constrain and policy is None:
        raise Refused("no policy is active, so there are no hosts to constrain it to", "exeat policy apply PATH")
    try:
        named = tuple(normalise_host(name) for name in step.permit)
    except ValueInvalid as error:
        raise WrongUse(f"--permit: {error}") from error
    hosts = policy_hosts(policy) if step.constrain else ()
    return Permitted.of((*hosts, *named, *own, ALWAYS_PERMITTED))


def _noted(permitted: Permitted | None) -> str:
    return "everything" if permitted is None else str(permitted)[:400]


def _span(length: timedelta) -> str:
    hours = length / timedelta(hours=1)
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"


def _fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _shown(role: str, certificate: x509.Certificate) -> AuthorityShown:
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    permitted = permitted_by(certificate)
    names = None if permitted is None else (*permitted.domains, *(str(network) for network in permitted.networks))
    return AuthorityShown(
        role=role,
        subject=certificate.subject.rfc4514_string(),
        sha256=_fingerprint(certificate),
        spki_sha256=base64.b64encode(hashlib.sha256(public).digest()).decode("ascii"),
        key="ECDSA P-256",
        not_before=f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        not_after=f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        seconds_left=int((certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds()),
        permitted=names,
        pem=certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
    )
