"""``lightning-adv interpret``: several networks side by side, from one crafting of the adversarial examples."""
