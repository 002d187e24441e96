"""One error for content that cannot be read in exactly one way."""


class ContentRefused(Exception):
    """The content is refused. `detail` is safe for an agent to read: it quotes nothing of the content."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
