"""What makes the result of an evaluation hard to believe."""
