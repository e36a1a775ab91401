"""Against binomial tails counted by hand."""

import json
import math

import pytest
import torch

from lightning_adv.evaluation.suspicion.verdicts import (
    ALPHA,
    blackbox_beats_whitebox,
    fgsm_beats_pgd,
    full_eps_leaves_accuracy,
    larger_eps_does_not_help,
    more_steps_do_not_help,
    sign_test,
)

N = 128


def tail(count, total, share):
    """The probability of at least ``count`` of ``total``, term by term."""
    return sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count, total + 1))


def first(number, total=N):
    """Verdicts of which the first ``number`` are True."""
    return torch.arange(total) < number


def last(number, total=N):
    return first(number, total).flip(0)


def test_the_sign_test():
    assert sign_test(8, 2) == pytest.approx((45 + 10 + 1) / 1024)
    assert sign_test(0, 7) == 1
    assert sign_test(0, 0) == 1
    assert sign_test(10, 0) == pytest.approx(2**-10)


@pytest.mark.slow
@pytest.mark.parametrize(("tolerance", "total"), [(0.01, N), (0.002, N), (0.01, 1000), (0.002, 1000)])
def test_a_black_box_may_be_lucky_on_a_few(tolerance, total):
    enough = next(k for k in range(total) if tail(k, total, tolerance) < ALPHA)
    white = first(50, total)
    for black_only, suspicious in ((enough - 1, False), (enough, True)):
        black = first(10, total) | last(black_only, total)  # ten of the white-box attack's, and others
        found = blackbox_beats_whitebox(white, black, tolerance=tolerance)
        assert (found is not None) == suspicious
    assert found.name == "blackbox_beats_whitebox"
    assert found.evidence.pop("p_value") == pytest.approx(tail(enough, total, tolerance))
    assert found.evidence == {
        "images": total, "whitebox_broken": 50, "blackbox_broken": 10 + enough, "blackbox_only": enough,
        "tolerance": tolerance,
    }  # fmt: skip
    assert f"broke {enough} of {total} images" in found.message


def test_a_black_box_that_is_weaker_on_the_whole_is_still_suspicious():
    found = blackbox_beats_whitebox(first(100), last(20))  # what AutoAttack flags, too
    assert found.evidence["whitebox_broken"] > found.evidence["blackbox_broken"]


@pytest.mark.parametrize(
    ("fgsm", "pgd", "suspicious"),
    [
        (first(9), first(0), False),  # 2⁻⁹ is 0.002
        (first(10), first(0), True),
        (first(40), last(40), False),  # each has 40 of its own
        (first(60), last(30), False),  # by a hair: 0.00103
        (first(61), last(30), True),
        (first(50), last(35), False),
        (first(128), first(128), False),
        (first(0), first(0), False),
        (first(20), first(60), False),
    ],
)
def test_fgsm_may_win_on_a_few(fgsm, pgd, suspicious):
    found = fgsm_beats_pgd(fgsm, pgd)
    own, others = int((fgsm & ~pgd).sum()), int((pgd & ~fgsm).sum())
    chance = tail(own, own + others, 0.5)
    assert (chance < ALPHA) == suspicious
    assert (found is not None) == suspicious
    if found is not None:
        assert (found.name, found.evidence["fgsm_only"], found.evidence["pgd_only"]) == ("fgsm_beats_pgd", own, others)
        assert found.evidence["p_value"] == pytest.approx(chance)


@pytest.mark.parametrize(
    ("check", "name"),
    [(more_steps_do_not_help, "more_steps_do_not_help"), (larger_eps_does_not_help, "larger_eps_does_not_help")],
)
class TestGrowth:
    def test_it_must_be_rarer_than_on_three_quarters(self, check, name):
        before = torch.zeros(N)
        few = next(k for k in range(N, 0, -1) if tail(N - k, N, 0.25) < ALPHA)
        assert 70 < few < 85
        assert check(before, first(few + 1).float(), first(60)) is None
        found = check(before, first(few).float(), first(60))
        assert found.name == name
        assert (found.evidence["images"], found.evidence["loss_grown"], found.evidence["unbroken"]) == (N, few, N - 60)
        assert found.evidence["p_value"] == pytest.approx(tail(N - few, N, 0.25))

    def test_nothing_is_suspicious_where_all_are_broken(self, check, name):
        assert check(torch.zeros(N), torch.zeros(N), first(N)) is None
        assert check(torch.zeros(N), torch.zeros(N), first(N - 1)).name == name

    def test_a_converged_attack_is_not_suspicious(self, check, name):
        """No verdict changes, but the loss still grows."""
        assert check(torch.rand(N), 1 + torch.rand(N), first(0)) is None

    def test_few_images_are_no_evidence(self, check, name):
        assert check(torch.zeros(4), torch.zeros(4), first(0, 4)) is None  # 0.25⁴ is 0.004
        assert check(torch.zeros(5), torch.zeros(5), first(0, 5)) is not None

    def test_what_is_not_a_number_has_not_grown(self, check, name):
        found = check(torch.zeros(N), torch.full((N,), torch.nan), first(0))
        assert found.evidence["loss_grown"] == 0
        json.dumps(found.evidence, allow_nan=False)

    def test_bad_shapes(self, check, name):
        with pytest.raises(ValueError, match="loss must have one number"):
            check(torch.zeros(N), torch.zeros(N - 1), first(0))


def test_a_full_ball_leaves_nothing():
    enough = next(k for k in range(N) if tail(k, N, 0.002) < ALPHA)
    assert full_eps_leaves_accuracy(first(N)) is None
    assert full_eps_leaves_accuracy(first(N - enough + 1)) is None
    found = full_eps_leaves_accuracy(first(N - enough))
    assert (found.name, found.evidence["unbroken"]) == ("full_eps_leaves_accuracy", enough)
    assert full_eps_leaves_accuracy(first(N - 1), tolerance=0).evidence["unbroken"] == 1


@pytest.mark.parametrize("bad", [torch.zeros(N), first(0, N - 1), first(N)[:, None]])
def test_bad_verdicts_are_named(bad):
    with pytest.raises(ValueError, match="black_broken must be bool"):
        blackbox_beats_whitebox(first(N), bad)
    with pytest.raises(ValueError, match="pgd_broken must be bool"):
        fgsm_beats_pgd(first(N), bad)


def test_no_images_and_bad_tolerances():
    with pytest.raises(ValueError, match="at least one image"):
        full_eps_leaves_accuracy(first(0, 0))
    for tolerance in (-0.1, 1, math.nan):
        with pytest.raises(ValueError, match="tolerance must lie in"):
            blackbox_beats_whitebox(first(N), first(N), tolerance=tolerance)
