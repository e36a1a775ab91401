"""Runs as one page: what the folders say, and the HTML that shows it. Needs neither torch nor Lightning."""
