"""Parts for lightning_adv. Nothing is imported here: each part is when it is named."""
