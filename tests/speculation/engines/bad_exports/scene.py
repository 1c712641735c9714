"""A folder of a model that is used as a service does, and changes of it."""

import json

import onnx
from onnx import TensorProto, helper

from speculation.engines.pairs import load_model

GRAPH = "onnx/model.onnx"


def use(path):
    """All that a service does with a model."""
    model = load_model(path)
    assert model.tokenizer
    assert model.digest
    return [model.engine(variant, 2, 1) for variant in model.variants]


def change_json(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_graph(path, change):
    model = onnx.load(path / GRAPH)
    change(model)
    onnx.save(model, path / GRAPH)


def with_tokens_of_a_run(count):
    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = count

    return change


def with_need_of_a_cache(model):
    """A graph that looks at the first token of its cache, which may not be there."""
    zero = helper.make_tensor("the_first", TensorProto.INT64, [], [0])
    model.graph.initializer.extend([zero, helper.make_tensor("nothing_of_it", TensorProto.FLOAT, [], [0.0])])
    for node in model.graph.node:
        node.output[:] = ["logits.before" if name == "logits" else name for name in node.output]
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["past_key_values.0.key", "the_first"], ["first_key"], axis=2),
            helper.make_node("ReduceSum", ["first_key"], ["first_sum"], keepdims=0),
            helper.make_node("Mul", ["first_sum", "nothing_of_it"], ["no_sum"]),
            helper.make_node("Add", ["logits.before", "no_sum"], ["logits"]),
        ]
    )
