"""``lightning-adv fit``, ``validate``, ``test`` and ``predict``."""
