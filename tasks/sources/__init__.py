"""Where data come from: addresses, transfers that go on where they broke, collections that grow, what data/raw holds.

It enters data/ for the layout, the snapshots and the shards, and stage/.
"""
