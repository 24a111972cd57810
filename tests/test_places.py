"""Places for what lasts: how many there are, for all and for one."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from artstore_grpc.errors import Overloaded
from artstore_grpc.places import Places


@pytest.mark.parametrize(("most", "share"), [(1, 1), (3, 1), (8, 2)])
def test_a_fourth_for_one(most: int, share: int) -> None:
    """One holder has a fourth at most, and one at least; all together have as many as there are."""
    places = Places(most, reason="TOO_MANY")
    with ExitStack() as stack:
        for number in range(most):
            stack.enter_context(places.held(f"holder {number // share}"))
            if places.count < most and places.count % share == 0:
                with pytest.raises(Overloaded), places.held(f"holder {number // share}"):
                    pass
        assert places.count == most
        with pytest.raises(Overloaded) as caught, places.held("another"):
            pass
        assert (caught.value.reason, caught.value.retry_after is not None) == ("TOO_MANY", True)
    assert places.count == 0


def test_a_place_is_given_back_whatever_happens() -> None:
    """An error ends what was held as its end does."""
    places = Places(1, reason="TOO_MANY")
    with pytest.raises(ValueError, match="defect"), places.held("a"):
        raise ValueError("defect")
    with places.held("a"):
        assert places.count == 1
