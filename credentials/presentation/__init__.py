"""How a secret is presented to a service. A new way is one file and one line in `PRESENTATIONS`."""

from typing import ClassVar, Final, Protocol

from credentials.presentation.basic import Basic
from credentials.presentation.bearer import Bearer
from credentials.presentation.header import Header
from credentials.presentation.refusal import PresentationInvalid, SecretNotPresentable
from credentials.secret import Secret

__all__ = [
    "PRESENTATIONS",
    "Basic",
    "Bearer",
    "Header",
    "Presentation",
    "PresentationInvalid",
    "SecretNotPresentable",
]


class Presentation(Protocol):
    """One header field that carries the secret. The agent's own copies of that field are removed by the caller."""

    kind: ClassVar[str]
    """As written in the policy after `present:`."""

    @property
    def header_name(self) -> bytes:
        """Lower-case field name."""
        ...

    def check(self, secret: Secret) -> None:
        """Returns if the secret can be presented; raises `SecretNotPresentable` (never with the secret) if not."""
        ...

    def render(self, secret: Secret) -> bytes:
        """The field's value. Raises as `check` does. The caller writes it to the bound host and nowhere else."""
        ...


PRESENTATIONS: Final[tuple[type[Presentation], ...]] = (Bearer, Basic, Header)
