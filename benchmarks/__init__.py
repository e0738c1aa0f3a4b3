"""Times beside peers, as ratios in one run."""
