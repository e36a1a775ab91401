"""Whether adversarial examples of one network fool another."""
