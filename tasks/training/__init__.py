"""The training engine.

To read it, in this order:

- trainer: the loop over epochs and launches; what is saved, reported and stopped when
- step: what a launch runs on the devices; one step's loss, gradient and sums
- feed, augment, rows: an epoch's order and draws from (seed, epoch, sample); images resident or streamed
- optimizer, adam, nesterov, muon, schedule, lookahead: how weights move
- checkpoint, state, saver: what a run's state is, and how it outlives the process
- cluster, distribute, local_hosts: which devices and hosts take part, and what they tell one another
- pace, precision, interruption, record: launch lengths, number formats, signals, what a finished run leaves

Two rules hold everywhere. What decides a result is a function of data, recipe and seed; clocks, devices and kills only
decide when work is done. And the devices wait for nothing that can happen elsewhere: drawing, reading, saving.
"""
