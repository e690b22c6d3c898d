"""The training engine, and its checkpoints near and far.

It enters data/ for the arrays, evaluation/ for the calibration error, models/, params/ for the recipe, s3/ for
checkpoints in a bucket, and stage/.

To read it, in this order:

- run: what decides a run, and what it reads
- trainer: the loop over epochs and launches; what is saved, reported and stopped when
- step, phase, balance: what a launch runs on the devices; one step's loss, gradient and sums
- draws, augment: an epoch's order and draws from (seed, epoch, sample), and what a step does to images by them
- feed, rows: images resident or streamed
- optimizer, adam, nesterov, muon, schedule, lookahead: how weights move; averaging: which ones are published
- checkpoint, state, saver: what a run's state is, and how it outlives the process
- cluster, distribute, local_hosts: which devices and hosts take part, and what they tell one another
- pace, precision, machine: launch lengths, number formats, what else of a machine decides a run's bits
- features, probe: a frozen network's features, kept by image, and the best linear head on them; it takes no steps
- temperature: by what the trained network's logits are divided
- interruption, run_checkpoints, unfinished, record: signals, saves from start to end, what a run leaves

Words: a *launch* is one call of the compiled loop over several steps (Keras: steps_per_execution). A *window* is the
steps whose images are on the devices together; resident images make one window an epoch. A *phase* is a stretch of
steps that one trace serves. *Draws* are an epoch's random choices. In every range of steps `stop` is not in it. Steps
count from 0 over the whole run, so that the number of steps done, which a checkpoint holds, is the next one's; what a
person reads names a step by how many are done with it. What a recipe may hold is in tasks/params/recipe.py; what ties
the engine to files, signals and a bucket is in tasks/train.py.

Two rules hold everywhere. What decides a result is a function of data, recipe and seed; clocks, devices and kills only
decide when work is done. And within an epoch reading and saving go on beside the devices, which wait for them only
where a window or a save takes longer than the work since the last one.
"""
