"""Studies: grids of runs, the engines that run them, and the table and figure of what came out."""
