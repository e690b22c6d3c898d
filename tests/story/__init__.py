"""Eight weeks of a collection that people add to: the real flow on two workers by turns, on real photographs."""
