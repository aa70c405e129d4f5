"""Three hosts as namespaces of this machine, a Ray node on each, and all of Descent on them."""
