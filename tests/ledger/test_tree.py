"""RFC 6962 trees against known answers and a definition written down plainly."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from ledger.tree import EMPTY_ROOT, Frontier, leaf_hash, path_of, root_from_path, root_of

# Test vectors of certificate-transparency (RFC 6962 reference implementation), `merkletree` inputs and roots.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def plainly(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + plainly(leaves[:split]) + plainly(leaves[split:])).digest()


def test_the_roots_of_certificate_transparencys_vectors():
    leaves = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]
    assert [root_of(leaves[: size + 1]).hex() for size in range(8)] == ROOTS
    assert Frontier().root() == EMPTY_ROOT


@given(st.integers(1, 130), st.data())
def test_frontiers_and_paths_follow_the_definition(size, data):
    leaves = [leaf_hash(bytes([n])) for n in range(size)]
    root = plainly(leaves)
    assert root_of(leaves) == root
    index = data.draw(st.integers(0, size - 1))
    path = path_of(index, leaves)
    assert root_from_path(leaves[index], index, size, path) == root
    assert root_from_path(leaves[index], index, size, (*path, root)) is None
    if path:
        assert root_from_path(leaves[index], index, size, path[:-1]) != root
        assert root_from_path(leaf_hash(b"other"), index, size, path) != root
