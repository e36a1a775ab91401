"""``lightning-adv export``: the checkpoint of a run becomes a plain network that needs nothing of this package."""
