"""The commands about runs that were made: list, show, compare, export, rerun and clean them."""
