"""Trains one classifier from images to a run directory: backbone, features, fit."""

from fissura.classification.recipe import classifier_of
from fissura.core import text
from fissura.data.labelled import check_classes, labelled_digest, parse_labelled
from fissura.distributed.environment import check_temporary_folder, prepare_environment
from fissura.distributed.training.task_training import TaskTraining, TrainingTerms
from fissura.models import check_weights
from fissura.records.run_files import MANIFEST, read_manifest
from fissura.records.trained import Trained
from fissura.training.experiment import Experiment


def train_classifier(recipe: Experiment, terms: TrainingTerms) -> Trained:
    """See `TaskTraining`. The workers learn the backbone if needed; every node extracts features."""
    check_temporary_folder(terms.address)
    prepare_environment(terms.address)
    from fissura.distributed.cluster import connected
    from fissura.distributed.preflight import Slots
    from fissura.distributed.search.trial_inputs import TrialInputs
    from fissura.distributed.training.fit_classifier import fit_run

    chosen, datasets = classifier_of(recipe), parse_labelled(terms.data)
    content = labelled_digest(datasets, directory=terms.cache)
    run = terms.storage / "runs" / chosen.run_id(content)
    if (run / MANIFEST).is_file():
        return Trained(run, read_manifest(run))
    check_classes(datasets, directory=terms.cache)
    check_weights(*chosen.weights_wanted)
    with connected(terms.address, say=terms.say) as resources:
        cpus = terms.cpus_per_worker or max(1, resources.node_cpus // terms.workers)
        inputs = TrialInputs(
            datasets,
            storage=terms.storage,
            cache=terms.cache,
            content=content,
            workers=terms.workers,
            slots=Slots(max(1, resources.cpus // cpus), cpus, 1.0 if resources.gpus else 0.0),
            address=terms.address,
            say=terms.say,
        )
        roles, classes = inputs.roles(chosen), text.listed(inputs.classes)
        images = text.count(len(roles.backbone) + len(roles.classifier), "training image")
        device = "GPUs" if resources.gpus else "CPUs"
        terms.say(f"training {chosen.name} on {images} of {classes}, on {device}")
        return Trained(run, fit_run(run, chosen, inputs, scores={}, cpus=cpus))


CLASSIFICATION_TRAINING: TaskTraining = train_classifier
