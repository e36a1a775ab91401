"""Images as networks and attacks see them: frequencies, transforms, perturbations."""
