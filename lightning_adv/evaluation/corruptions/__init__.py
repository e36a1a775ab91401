"""Common corruptions of images, and how well a network classifies them."""
