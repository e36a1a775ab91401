"""Networks as their attacks see them: prepared for many passes to the input and none to the weights."""
