"""``lightning-adv push``: a trained network on the Hugging Face hub, with a card of what is known of it."""
