"""What every room leans on: errors, optional imports, atomic files, progress, clocks, plot axes."""
