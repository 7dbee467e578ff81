"""Verbs of evaluation whose table options are arguments like others, as the command line has them."""

import inspect

from convirt.analysis.embedding import tsne as tsne_module
from convirt.analysis.saliency import saliency as saliency_module
from convirt.evaluation import classify as classify_module
from convirt.evaluation import finetune as finetune_module
from convirt.evaluation import retrieve as retrieve_module
from convirt.evaluation import zero_shot as zero_shot_module
from convirt.evaluation.inputs.options import LabelledTableOptions


def flat(verb):
    """The verb with the fields of its table options as arguments of their own; table and images also by place."""

    def call(runs, *place, **arguments):
        parameters = inspect.signature(verb).parameters
        arguments |= dict(zip(("table", "images"), place, strict=False))
        options, rest = parameters["options"].annotation.__origin__.taken_from(arguments)
        return verb(runs, options, **rest)

    return call


classify = flat(classify_module.classify)
finetune = flat(finetune_module.finetune)
retrieve = flat(retrieve_module.retrieve)
saliency = flat(saliency_module.saliency)
tsne = flat(tsne_module.tsne)
zero_shot = flat(zero_shot_module.zero_shot)


def read_table(table, images, **arguments):
    """The rows of a table, by its options and those of `TableOptions.open`; its splits are in the column `split`."""
    options, rest = LabelledTableOptions.taken_from(
        {"table": table, "images": images, "split_column": "split", **arguments}
    )
    return options.open(**rest).table
