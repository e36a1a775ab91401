"""The sections that come with the package, one file for each."""
