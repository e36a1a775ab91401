"""The science as pure functions: no Trainer is needed to call them."""
