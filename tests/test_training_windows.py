"""Windows of something long: that they cover it, and that what is made of them joins without a seam."""

from __future__ import annotations

import pytest
import torch

from training.windows import OVERLAP, cut_windows, join_windows, plan_windows

LENGTHS = [
    (1, 1),
    (5, 1),
    (1, 8),
    (7, 8),
    (8, 8),
    (9, 8),
    (13, 8),
    (14, 8),
    (15, 8),
    (1000, 8),
    (301, 300),
    (525, 300),
    (526, 300),
    (5321, 300),
]


@pytest.mark.parametrize(("length", "size"), LENGTHS)
def test_windows_of_one_thing_join_to_that_thing(length: int, size: int) -> None:
    whole = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(length))
    cut = plan_windows(length, size)
    windows = cut_windows(whole, cut)
    assert windows.shape == (len(cut.starts), 2, 3, size)
    torch.testing.assert_close(join_windows(windows, cut), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("length", "size"), LENGTHS)
def test_windows_lie_inside_and_neighbours_share_enough(length: int, size: int) -> None:
    cut = plan_windows(length, size)
    assert cut.starts[0] == 0
    assert cut.starts[-1] == max(0, length - size), "the last one ends where all ends"
    for first, second in zip(cut.starts, cut.starts[1:], strict=False):
        assert first + size - second >= min(OVERLAP * size, size - 1)


@pytest.mark.parametrize(("length", "size"), LENGTHS)
def test_gains_add_up_to_one_and_are_never_negative(length: int, size: int) -> None:
    cut = plan_windows(length, size).times(320)
    gains = torch.stack([cut.gains(place) for place in range(len(cut.starts))])
    assert gains.min() >= 0
    torch.testing.assert_close(join_windows(torch.ones_like(gains), cut), torch.ones(cut.length), rtol=0, atol=1e-6)


def test_neighbours_meet_in_a_raised_cosine() -> None:
    cut = plan_windows(150, 100)
    first, second = torch.zeros(100), torch.ones(100)
    joined = join_windows(torch.stack([first, second]), cut)
    fading = joined[(joined > 0) & (joined < 1)]
    assert len(fading) == cut.fade
    assert joined.diff().min() >= 0, "from one to the other, and never back"
    assert float(fading[len(fading) // 2]) == pytest.approx(0.5, abs=0.1)
    assert float(joined.diff().max()) == pytest.approx(torch.pi / 2 / cut.fade, rel=0.05)


def test_the_ends_of_a_window_are_never_heard_beside_a_neighbour() -> None:
    cut = plan_windows(1000, 100)
    whole = torch.arange(1000.0)
    windows = cut_windows(whole, cut)
    for place in range(len(cut.starts)):
        if place > 0:
            windows[place, :5] = 1e6
        if place + 1 < len(cut.starts):
            windows[place, -5:] = -1e6
    torch.testing.assert_close(join_windows(windows, cut), whole)


def test_what_is_shorter_than_a_window_is_padded_with_silence_and_trimmed_back() -> None:
    cut = plan_windows(30, 100)
    (window,) = cut_windows(torch.ones(30), cut)
    assert window.tolist() == [1.0] * 30 + [0.0] * 70
    assert join_windows(window[None], cut).tolist() == [1.0] * 30
