import re

import pytest

from lightning_adv.core.errors import UsageError
from lightning_adv.core.threat_model import ThreatModel

THREATS = [ThreatModel("linf", 8 / 255), ThreatModel("l2", 0.5), ThreatModel("l1", 12.0), ThreatModel(None, None)]


@pytest.mark.parametrize("threat", THREATS)
def test_what_is_written_is_read(threat):
    assert ThreatModel.parse(str(threat)) == threat
    assert ThreatModel.from_plain(threat.to_plain()) == threat


def test_the_words():
    assert [str(threat) for threat in THREATS] == ["Linf 8/255", "L2 0.5", "L1 12", "no ball of a norm"]
    assert THREATS[0].to_plain() == {"norm": "Linf", "eps": 8 / 255}
    assert THREATS[3].to_plain() is None
    assert ThreatModel("l2", None).to_plain() is None


@pytest.mark.parametrize("text", ["Linf", "Linf much", "Linf 1/0", "Linf -1", "Linf inf", "", " 1"])
def test_what_is_not_a_threat_model(text):
    with pytest.raises(UsageError, match=re.escape(f"got {text!r}.")):
        ThreatModel.parse(text)


def test_a_ball_holds_the_smaller_ones_of_its_norm():
    small, large, other, none = ThreatModel("l2", 0.5), ThreatModel("l2", 1), ThreatModel("linf", 0.1), THREATS[3]
    held = {(a, b) for a in (small, large, other, none) for b in (small, large, other, none) if a.holds(b)}
    assert held == {(small, small), (large, large), (large, small), (other, other), (none, none)}
