"""`lightning-adv study`: a grid of runs as one command."""
