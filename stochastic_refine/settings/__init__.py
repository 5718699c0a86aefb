"""Options files: reading them, and checking them and their data sets before anything is built."""
