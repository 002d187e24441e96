"""To whom a secret may be presented. Mapped from the policy, so that this package need not know rules."""

from dataclasses import dataclass

from credentials.presentation import Presentation
from credentials.secret import Secret


class BindingRefused(Exception):
    """The secret was about to be presented to a destination that it is not bound to. The caller denies and reports."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One tenant's secret, and the one destination and form in which it leaves."""

    tenant: str
    connection: str
    scheme: str
    """`https`, or `http` where the policy says `unsafe_plaintext`."""
    host: str
    """Normalised as in `Call.host`."""
    port: int
    secret_name: str
    presentation: Presentation
    begins: tuple[str, ...] = ()
    """What a secret of the right kind begins with; empty: any."""

    def present(self, secret: Secret, *, tenant: str, scheme: str, host: str, port: int) -> tuple[bytes, bytes]:
        """The header field (lower-case name, value) for a request of `tenant` to exactly that destination.

        Raises `BindingRefused` for any other tenant, destination or kind of secret, `SecretNotPresentable` for an unfit
        one.
        """
        if (tenant, scheme, host, port) != (self.tenant, self.scheme, self.host, self.port):
            raise BindingRefused(
                f"the secret of connection {self.connection} is bound to another destination than {scheme}://{host}:{port}"
            )
        if not self.fits(secret):
            raise BindingRefused(
                f"the secret of connection {self.connection} is of another kind than its mode asks for"
            )
        return self.presentation.header_name, self.presentation.render(secret)

    def fits(self, secret: Secret) -> bool:
        """Whether the secret is of the kind that the connection's mode asks for, as far as its beginning says."""
        return not self.begins or secret.reveal().startswith(tuple(begin.encode() for begin in self.begins))
