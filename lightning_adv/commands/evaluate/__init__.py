"""``lightning-adv evaluate``: from a checkpoint and a data set to numbers that one can believe."""
