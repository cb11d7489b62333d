"""Sequence mixers: attention, its recurrences and structured maps behind one interface (`interface`)."""
