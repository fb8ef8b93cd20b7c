"""One training of a segmenter: in this process, or by several workers on Ray."""

from typing import Any

from fissura.core import text
from fissura.core.progress import Reminders
from fissura.data.content import content_digest, notes_of
from fissura.data.datasets import parse_datasets
from fissura.data.sample import Split
from fissura.data.trainable import prepare_training
from fissura.distributed.environment import check_temporary_folder, prepare_environment
from fissura.distributed.training.task_training import TaskTraining, TrainingTerms
from fissura.models import check_weights
from fissura.records.run_files import MANIFEST
from fissura.records.trained import Trained
from fissura.segmentation.fit import fit
from fissura.segmentation.recipe import segmenter_of
from fissura.training.experiment import Experiment
from fissura.training.runtime import LocalRuntime

NOUNS: tuple[tuple[Split, str], ...] = (("train", "training"), ("val", "validation"))


def train_segmenter(recipe: Experiment, terms: TrainingTerms) -> Trained:
    """See `TaskTraining`. Imports Ray only for several workers or a cluster."""
    chosen, datasets = segmenter_of(recipe), parse_datasets(terms.data)
    here = terms.workers == 1 and terms.address is None
    if not here:
        check_temporary_folder(terms.address)
    check_weights(*chosen.weights_wanted)
    content = content_digest(datasets, directory=terms.cache)
    prepared = prepare_training(
        datasets,
        resize=chosen.data.resize,
        directory=terms.cache,
        content=content,
        on_sample=terms.on_image,
    )
    for remark in [*notes_of(datasets), *prepared.remarks]:
        terms.say(remark)
    run = terms.storage / "runs" / chosen.run_id(content)

    def begin(where: str) -> None:
        if not (run / MANIFEST).is_file():
            images = (text.count(len(prepared.indices(split)), f"{noun} image") for split, noun in NOUNS)
            epochs = text.count(chosen.epochs, "epoch") if chosen.epochs else "nothing to train"
            terms.say(f"training {chosen.name} on {' and '.join(images)}: {epochs}, {where}")

    if here:
        runtime, reminders = LocalRuntime(cpus=terms.cpus_per_worker), Reminders()
        device = "the CPU" if runtime.device.type == "cpu" else "a GPU"
        begin(f"on {device}, with {text.count(runtime.cpus, 'CPU')}")

        def counted(record: dict[str, Any]) -> None:
            reminders.restart()
            terms.on_epoch({**record, "epochs": chosen.epochs})

        def on_step(epoch: int, done: str) -> None:
            if waited := reminders.due():
                terms.say(f"epoch {epoch}/{chosen.epochs}: {done}, after {text.duration(waited)}")

        manifest = fit(
            chosen,
            datasets=datasets,
            run=run,
            cache=terms.cache,
            content=content,
            runtime=runtime,
            on_epoch=counted,
            on_step=on_step,
        )
        return Trained(run, manifest)
    begin(f"by {text.count(terms.workers, 'worker')}")
    prepare_environment(terms.address)
    from fissura.distributed.training.train import train_on_workers

    manifest = train_on_workers(
        chosen,
        datasets=datasets,
        content=content,
        run=run,
        cache=terms.cache,
        workers=terms.workers,
        cpus_per_worker=terms.cpus_per_worker,
        address=terms.address,
        say=terms.say,
    )
    return Trained(run, manifest)


SEGMENTATION_TRAINING: TaskTraining = train_segmenter
