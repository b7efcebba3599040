"""How fast it is: ratios measured in alternation in one run, beside the floor that this machine's own peaks allow."""
