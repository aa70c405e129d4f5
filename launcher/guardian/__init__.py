"""The guardian: one small process that owns the tree of one attempt's command on one node. Standard library only."""
