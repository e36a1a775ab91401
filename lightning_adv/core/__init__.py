"""What everything stands on: recipes, errors, files, seeds, tables. Imports nothing of this package."""
