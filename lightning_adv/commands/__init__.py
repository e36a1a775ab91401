"""What one command does: find its configuration, keep its run folder, report its results."""
