"""Values by the very object."""

from rules.identity import ByIdentity


def test_a_value_is_found_by_the_object_and_not_by_its_equal() -> None:
    kept: ByIdentity[tuple[int, ...], str] = ByIdentity()
    one, same = tuple(range(3)), tuple(range(3))
    assert kept.get(one) is None
    assert kept.put(one, "made") == "made"
    assert kept.get(one) == "made"
    assert one == same
    assert kept.get(same) is None


def test_what_is_kept_is_bounded_and_alive() -> None:
    """An object that is let go of may give its number to another: none is kept by its number alone."""
    kept: ByIdentity[list[int], int] = ByIdentity(8)
    for number in range(1000):
        made = [number]
        assert kept.get(made) is None
        kept.put(made, number)
        assert kept.get(made) == number
    assert len(kept._kept) <= 8
