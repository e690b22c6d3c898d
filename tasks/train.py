"""Train the recipe's model on every chosen device: data/split → model.

`python -m tasks.train`, with the sections `train` and `recipes` of params.yaml. `--hosts 2` tries two processes on this
machine; on real hosts TF_CONFIG says who they are.
"""

import argparse
import contextlib
import shutil
import sys
from pathlib import Path

import numpy as np
from dvclive import Live

from tasks.stage.quiet_tensorflow import keras, tf
from tasks.data.arrays import SplitRecord, load_split_record
from tasks.model_files.configuration import check_layers
from tasks.model_files.files import load_model, save_model
from tasks.models.build import build_model, load_pretrained, logits_of, whiten, with_temperature
from tasks.models.start import START_HASHES, START_MODEL, Start, read_start
from tasks.models.take_over import take_over
from tasks.params.costs import cost_matrix
from tasks.params.params import TrainParams, load_params
from tasks.params.probe import ProbeRecipe
from tasks.params.recipe import Recipe
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import remove_leftovers, replaced_folder
from tasks.stage.progress import Progress
from tasks.stage.shown import percent
from tasks.training.checkpoint import CheckpointFolder
from tasks.training.cluster import Agreement, Cluster, read_cluster
from tasks.training.distribute import build_strategy
from tasks.training.features import FeatureStore
from tasks.training.feed import Samples
from tasks.training.interruption import interruptible
from tasks.training.local_hosts import run_hosts
from tasks.training.machine import Machine, cores, describe, differences, use_threads
from tasks.training.precision import POLICIES
from tasks.training.probe import features_key, probe
from tasks.training.record import HistoryWriter, write_facts, write_speed
from tasks.training.remote_checkpoints import RemoteCheckpoints
from tasks.training.run import Prepared, Run, agreed, check_batch_size, makings_of, prepare, read
from tasks.training.run_checkpoints import fetch_newer, saving
from tasks.training.saver import Saver, warn_on_stderr
from tasks.training.temperature import calibrate
from tasks.training.trainer import Result, Trainer

SPLIT_FOLDER = Path("data/split")
WEIGHTS_FOLDER = Path("data/weights")
MODEL_FOLDER = Path("model")
CHECKPOINT_FOLDER = Path(".cache/checkpoints")
FEATURES_FOLDER = Path(".cache/features")
FEW_STEPS = 100


def train(
    params: TrainParams,
    recipe: Recipe | ProbeRecipe,
    split: Path,
    output: Path,
    checkpoints: Path = CHECKPOINT_FOLDER,
    weights: Path = WEIGHTS_FOLDER,
    features: Path = FEATURES_FOLDER,
    begins_from: str | None = None,
) -> None:
    """Train a model on `split` and write it and its history to the folder `output`.

    A run that was stopped or killed goes on from its last checkpoint; the finished run removes its checkpoints. Of
    several hosts only the chief writes.

    Args:
        params: Recipe's name, seed, devices and checkpoints.
        recipe: The recipe that `params.recipe` names.
        split: Folder with split.json and the training and validation arrays, uint8 (N, H, W, 3) and int32 (N,).
        output: Folder that gets model.keras and what belongs to it; see the README's contracts.
        checkpoints: Folder of all runs' checkpoints.
        weights: Folder of the weights to begin with, where there are some.
        features: Folder of the features that a probe has computed before.
        begins_from: The id of the release whose model the folder `weights` holds; None for from scratch.

    Raises:
        InputError: A device is not there, the replicas do not divide the batch size, the data do not fit, the
            release to begin from has another architecture or is not there, or the loss became infinite.
        ResumableError: SIGTERM or Ctrl-C stopped the run, or a host is gone; the same call goes on.
    """
    cluster, record = read_cluster(), load_split_record(split)
    if isinstance(recipe, ProbeRecipe):
        if cluster.is_chief:
            _probe(params, recipe, split, record, output, weights, features)
        return
    start = read_start(weights, begins_from)
    makings = makings_of(params, recipe, record, weights, start)
    folder = CheckpointFolder(checkpoints, makings.fingerprint)
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(interruptible())
        stack.enter_context(cluster.naming_lost_hosts())
        remote = fetch_newer(params.checkpoint_remote, folder) if cluster.is_chief else None
        begun = folder.newest_machine() if cluster.is_chief else {}
        use_threads(params.threads or begun.get("threads"))
        strategy = build_strategy(params.devices, cluster)
        interruption.listen()  # again: TensorFlow takes SIGTERM for itself when it connects several hosts
        check_batch_size(params, recipe, strategy.num_replicas_in_sync)
        run = prepare(params, recipe, split, record, makings, start)
        run = agreed(run, begun.get("precision"), Agreement(strategy, cluster))
        trainer = _trainer(run, strategy, cluster, weights)
        trainer.stop_requested = interruption.requested
        if cluster.is_chief:
            _lead(run, trainer, output, checkpoints, remote, weights)
        else:
            _follow(run, trainer, checkpoints)


def _lead(
    run: Run, trainer: Trainer, output: Path, checkpoints: Path, remote: RemoteCheckpoints | None, weights: Path
) -> None:
    """Train as the only host, or the first of several, and write what comes of it."""
    _say_what_starts(run, trainer)
    remove_leftovers(output)
    # The checkpoints go last, when the model has its place.
    machine = describe(trainer.strategy, run.precision)
    folder = CheckpointFolder(checkpoints, run.makings.fingerprint, machine)
    with saving(run.params, run.makings, folder, remote) as saver, replaced_folder(output) as temporary:
        with Live(str(temporary / "dvclive"), dvcyaml=None, save_dvc_exp=False) as live:
            result = _fit(trainer, saver, HistoryWriter(live), machine)
        _write(_in_float32(trainer, run), result, run, temporary)
        if run.start is not None:  # what it has seen, its successor has seen: the stage publish adds it
            shutil.copyfile(weights / START_HASHES, temporary / START_HASHES)
    write_speed(result, trainer.strategy, max(len(trainer.cluster.hosts), 1), machine)


def _probe(
    params: TrainParams,
    recipe: ProbeRecipe,
    split: Path,
    record: SplitRecord,
    output: Path,
    weights: Path,
    features: Path,
) -> None:
    """Solve the head on frozen features, as the only host that has anything to do, and write what comes of it."""
    with interruptible() as interruption:
        use_threads(1)  # an operation; several images go through the network at once
        strategy = build_strategy(params.devices)
        run = read(params, recipe, split, record, makings_of(params, recipe, record, weights))
        machine = describe(strategy, run.precision)
        keras.config.set_dtype_policy(POLICIES[run.precision])
        with tf.device(strategy.extended.worker_devices[0]):
            network = build_model(recipe.model, record.image_shape, len(record.classes), run.statistics)
            load_pretrained(network, recipe.model, weights)
            store = FeatureStore(features, features_key(run, machine), warn_on_stderr)
            remove_leftovers(output)
            result = probe(network, run, store, interruption.requested)
            with replaced_folder(output) as temporary:
                with Live(str(temporary / "dvclive"), dvcyaml=None, save_dvc_exp=False) as live:
                    writer = HistoryWriter(live)
                    for logs in result.history:
                        writer.write(logs)
                _write(network, result, run, temporary)
        write_speed(result, strategy, 1, machine)


def _write(network: keras.Model, result: Result, run: Prepared, folder: Path) -> None:
    """Calibrate the network that a run has made, and write it and what belongs to it into a folder."""
    calibrated = calibrate(logits_of(network), Samples(run.validation.images, run.validation.labels))
    final = with_temperature(network, calibrated.temperature)
    save_model(final, folder / "model.keras")
    write_facts(folder, final, result, calibrated, run)


def _follow(run: Run, trainer: Trainer, checkpoints: Path) -> None:
    """Train as one of the hosts that are not the first: the same steps, and nothing written."""
    # It never saves: it reads the chief's bytes as this run's checkpoint, and ends launches where the chief's does.
    saver = Saver(CheckpointFolder(checkpoints, run.makings.fingerprint), every_steps=run.params.checkpoint_every_steps)
    trainer.resume(saver)
    trainer.fit(saver)


def _trainer(run: Run, strategy: tf.distribute.Strategy, cluster: Cluster, weights: Path) -> Trainer:
    recipe, record = run.recipe, run.record
    released = None if run.start is None else load_model(weights / START_MODEL, run.start.model_sha256)
    keras.utils.set_random_seed(run.params.seed)
    keras.config.set_dtype_policy(POLICIES[run.precision])
    with strategy.scope():
        shape = (None, None, record.image_shape[2]) if recipe.augment.shrink else record.image_shape
        model = build_model(recipe.model, shape, len(record.classes), run.statistics)
        check_layers(model.to_json().encode())  # now, and not after hours, when the trained model is loaded
        load_pretrained(model, recipe.model, weights)
        whiten(model, recipe.model, run.training.images, run.statistics, run.params.seed)
        if run.start is not None:
            mixture = run.params.shrink_perturb
            factors = None if mixture is None else (mixture.shrink, mixture.perturb)
            take_over(model, released, run.start, record.classes, recipe.model, factors)
    training, validation = (Samples(arrays.images, arrays.labels) for arrays in (run.training, run.validation))
    mean_pixel = tuple(round(value) for value in run.statistics.mean)
    memory = run.params.memory_megabytes << 20
    return Trainer(
        model, recipe, run.params.seed, strategy, training, validation, mean_pixel, cluster=cluster, memory=memory
    )


def _fit(trainer: Trainer, saver: Saver, writer: HistoryWriter, machine: Machine) -> Result:
    """Train with a progress line, and say where a resumed run goes on."""
    batch, per_epoch = trainer.recipe.batch_size, trainer.steps_per_epoch
    trainer.callbacks = [writer]
    checkpoint = trainer.resume(saver)
    if checkpoint:
        epoch = len(checkpoint.history)
        within = checkpoint.step - epoch * per_epoch
        print(f"resuming in epoch {epoch + 1}, after {within} steps of it ({checkpoint.step} in all)", flush=True)
        threads = int(machine["threads"])
        if str(threads) == checkpoint.machine.get("threads") and threads != cores():
            print(f"computing with {threads} thread{'s' * (threads > 1)}, as it began, on {cores()} cores", flush=True)
        if differing := differences(checkpoint.machine, machine):
            warn_on_stderr(f"goes on from another machine ({differing}): it ends in other bytes than undisturbed")
        for logs in checkpoint.history:
            writer.write(logs)
    progress = Progress(trainer.total_steps * batch, "images", done=(checkpoint.step if checkpoint else 0) * batch)

    def report(step: int, steps: int, metrics: dict[str, float]) -> None:
        epoch, within = divmod(step - 1, per_epoch)
        text = f"epoch {epoch + 1}/{-(-steps // per_epoch)}, step {within + 1}/{per_epoch}"
        text += f", loss {metrics['train_loss']:.4f}, top-1 {percent(metrics['train_top1'])}"
        progress.update(step * batch, text)

    trainer.report = report
    result = trainer.fit(saver)
    progress.close()
    return result


def _in_float32(trainer: Trainer, run: Run) -> keras.Model:
    """Return the trained network as it is published: in float32, whatever it was trained in, on one device."""
    keras.config.set_dtype_policy("float32")
    final = build_model(run.recipe.model, run.record.image_shape, len(run.record.classes), run.statistics)
    final.set_weights([np.asarray(weight, np.float32) for weight in trainer.model.get_weights()])
    return final


def _say_what_starts(run: Run, trainer: Trainer) -> None:
    strategy, recipe, hosts = trainer.strategy, run.recipe, len(trainer.cluster.hosts)
    parameters, images = trainer.model.count_params(), len(run.training.labels)
    devices = [device.rpartition("device:")[2] for device in strategy.extended.worker_devices]
    replicas, on_hosts = strategy.num_replicas_in_sync, f" on {hosts} hosts" if hosts else ""
    print(
        f"recipe {run.params.recipe}: {parameters:,} parameters, {images:,} images, "
        f"up to {recipe.epochs:g} epochs, global batch size {recipe.batch_size}, {run.precision}, "
        f"{replicas} replica{'s' if replicas > 1 else ''}{on_hosts} ({', '.join(devices)})",
        flush=True,
    )
    if run.start is not None:
        print(_said_of_the_start(run.start, run), flush=True)
    if trainer.total_steps < FEW_STEPS:
        print(
            f"that is {trainer.total_steps:,} steps in all, from which little is learnt: a recipe of smaller batches "
            "or more epochs takes more (train.recipe=finetune is for image folders)",
            flush=True,
        )


def _said_of_the_start(start: Start, run: Run) -> str:
    known, classes = sum(name in start.classes for name in run.record.classes), len(run.record.classes)
    mixture = run.params.shrink_perturb
    mixed = "" if mixture is None else f" × {mixture.shrink:g} + {mixture.perturb:g} × the seed's own"
    return f"begins with the weights of release {start.release}{mixed}; it knows {known} of {classes} classes"


def main() -> None:
    """Run the stage on the files that dvc.yaml names."""
    parser = argparse.ArgumentParser(prog="python -m tasks.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=1, metavar="N", help="try N processes on this machine")
    hosts = parser.parse_args().hosts

    def command() -> None:
        if hosts < 1:
            raise InputError(f"--hosts {hosts}: at least 1")
        params = load_params()
        if hosts > 1:
            raise SystemExit(run_hosts(hosts, [sys.executable, "-m", "tasks.train"]))
        cost_matrix(params.evaluate.costs, load_split_record(SPLIT_FOLDER).classes)  # now, and not when evaluate begins
        train(params.train, params.recipe, SPLIT_FOLDER, MODEL_FOLDER, begins_from=params.begins_from)

    run_command(_name(), command)


def _name() -> str:
    """Return the stage's name, with the host's where there are several: its words stand among those of others."""
    try:
        cluster = read_cluster()
    except InputError:
        return "train"
    return "train" if cluster.is_chief else f"train on {cluster.hosts[cluster.own].address}"


if __name__ == "__main__":
    main()
