"""No proxy: what the client and the origin can do on their core by themselves."""

from benchmarks.load import Target
from benchmarks.peers.peer import Running
from benchmarks.place import NAME, Place


class Direct:
    """The ceiling of every other figure; its processor time is the origin's."""

    name = "direct"
    title = "straight to the origin, no proxy"

    def version(self) -> str:
        return ""

    def start(self, place: Place) -> Running:
        return Running(
            place.origin,
            Target(
                ("127.0.0.1", place.origin_port),
                f"{NAME}:{place.origin_port}",
                str(place.origin_ca),
                tunnel=False,
            ),
        )
