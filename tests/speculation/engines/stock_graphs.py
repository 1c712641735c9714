"""Models in the layouts that other tools publish, of the weights of ``tiny.py``: written here, node by node."""

import json

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from speculation.engines.graph import GraphParts
from tests.speculation.engines.tiny import TINY, tiny_tokenizer, tiny_weights

OPSET, IR_VERSION = 18, 9
LOWEST = float(np.finfo(np.float32).min)
INT64, FLOAT, HALF = TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT16


def export_folder(path, seed=0, graphs=None, name="tiny-export", subfolder="onnx", tokenizer=None, **overrides):
    """A folder as the Hugging Face hub has them. ``graphs``: file name -> keyword arguments of ``stock_graph``."""
    config = {**TINY, "_name_or_path": name, "eos_token_id": 0, **overrides}
    (path / subfolder).mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0]}))
    (path / "tokenizer.json").write_bytes(tokenizer or tiny_tokenizer())
    for file, given in (graphs or {"model.onnx": {}}).items():
        made = merged_graph if "merged" in file else stock_graph
        onnx.save(made(config, seed, **given), path / subfolder / file)
    return path


def genai_folder(path, seed=0, **overrides):
    """A folder as the model builder of onnxruntime-genai writes them: other names, no ``position_ids``."""
    config = {**TINY, **overrides}
    path.mkdir(parents=True, exist_ok=True)
    names = ("past_%d.k", "past_%d.v", "now_%d.k", "now_%d.v")
    onnx.save(stock_graph(config, seed, attention="gqa", names=names), path / "decoder.onnx")
    inputs = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    inputs |= {"past_key_names": names[0], "past_value_names": names[1]}
    decoder = {
        "filename": "decoder.onnx",
        "inputs": inputs,
        "outputs": {"logits": "logits", "present_key_names": names[2], "present_value_names": names[3]},
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_key_value_heads"],
        "head_size": config["head_dim"],
        "hidden_size": config["hidden_size"],
    }
    model = {"type": "llama", "decoder": decoder, "eos_token_id": [0]}
    model |= {"vocab_size": config["vocab_size"], "context_length": config["max_position_embeddings"]}
    (path / "genai_config.json").write_text(json.dumps({"model": model, "search": {}}))
    (path / "tokenizer.json").write_bytes(tiny_tokenizer())
    return path


def transformers_folder(path, seed=0, extra_inputs=(), **overrides):
    """A folder as `transformers` 5 exports for generation: two graphs, and a list that says what they call their cache."""
    config = {**TINY, "eos_token_id": 0, **overrides}
    path.mkdir(parents=True, exist_ok=True)
    names = tuple(f"{end}.cache.layers.%d.{part}" for end in ("input", "output") for part in ("keys", "values"))
    onnx.save(stock_graph(config, seed, names=names, extra_inputs=extra_inputs), path / "decode.onnx")
    (path / "prefill.onnx").write_bytes(b"not read")
    arguments = {"input_ids": {"rank": 2, "shape": [2, 2], "dtype": "int64"}, "cache": {"container": "DynamicCache"}}
    components = {name: {"file": f"{name}.onnx", "metadata": {"kwargs": arguments}} for name in ("prefill", "decode")}
    manifest = {"schema_version": 1, "export_format": "onnx", "components": components}
    (path / "export.json").write_text(json.dumps(manifest))
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_bytes(tiny_tokenizer())
    return path


def split_graphs(stem_variant="", **given):
    """The two graphs of a split decoder, for ``export_folder``; ``given`` is said of the one with a past."""
    return {f"decoder_model{stem_variant}.onnx": {"has_past": False}, f"decoder_with_past_model{stem_variant}.onnx": given}


def stock_graph(
    config,
    seed=0,
    attention="plain",
    cache=FLOAT,
    names=None,
    extra_inputs=(),
    shares_a_scale=False,
    keeps=None,
    sees_ahead=False,
    num_tokens="S",
    has_past=True,
    turning_length=0,
    turns_by_positions=False,
):
    """A padded graph with caches of the type ``cache``; ``attention`` is "plain" (concatenated caches), "gqa" or "gqa of
    turned rows".

    ``names`` are templates: past keys, past values, present keys, present values. With ``shares_a_scale`` activations are
    rounded to 8 bits with one scale for all rows of a run, as ``quantize_dynamic`` does it. ``keeps`` is the shape of an input
    ``num_logits_to_keep``. As a decoder's half that goes on behind a cache may have been traced, with one token: it
    ``sees_ahead``, for no mask is needed then, or takes ``num_tokens`` and no more. Without ``has_past`` it is the other half.
    Texts of more than ``turning_length`` tokens are turned by other tables, or ``turns_by_positions`` of one table.
    """
    names = names or (*_Builder.PAST, "present.%d.key", "present.%d.value")
    weights = {n: w.astype(np.float16).astype(np.float32) for n, w in tiny_weights(config, seed).items()}
    builder = _Builder(config, weights, attention, cache, names)
    builder.sees_ahead, builder.num_tokens = sees_ahead, num_tokens
    model = builder.build(extra_inputs, shares_a_scale, keeps)
    if turning_length:
        (_turn_by_positions if turns_by_positions else _turn_by_length)(model.graph, turning_length)
    return model if has_past else _without_past(model, config)


def _turn_by_length(graph, length):
    """As the builder of onnxruntime-genai writes ``longrope``: the length of the whole text chooses the tables."""
    tables = [tensor for tensor in graph.initializer if tensor.name in ("cos", "sin")]
    branches = {"else_branch": list(tables), "then_branch": []}
    angles = np.arctan2(*(numpy_helper.to_array(tensor) for tensor in reversed(tables))) / 4
    for tensor, f in zip(tables, (np.cos, np.sin), strict=True):
        graph.initializer.remove(tensor)
        branches["then_branch"].append(numpy_helper.from_array(f(angles), tensor.name))
    made = {
        branch: helper.make_graph(
            [helper.make_node("Constant", [], [f"{branch}.{t.name}"], value=t) for t in values],
            branch,
            [],
            [helper.make_tensor_value_info(f"{branch}.{t.name}", FLOAT, None) for t in values],
        )
        for branch, values in branches.items()
    }
    numbers = {name: numpy_helper.from_array(np.array(value, np.int64)) for name, value in (("value", length), ("axis", 1))}
    first = [helper.make_node("Constant", [], [f"turning.{name}"], value=value) for name, value in numbers.items()]
    first += [
        helper.make_node("Shape", ["attention_mask"], ["turning.shape"]),
        helper.make_node("Gather", ["turning.shape", "turning.axis"], ["turning.total"]),
        helper.make_node("Greater", ["turning.total", "turning.value"], ["turning.is_long"]),
        helper.make_node("If", ["turning.is_long"], ["cos", "sin"], **made),
    ]
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *kept])


def _turn_by_positions(graph, length):
    """The same for where a branch cannot be: one table, of which the highest position chooses the part."""
    tables = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in ("cos", "sin")}
    angles = np.arctan2(tables["sin"], tables["cos"]) / 4
    for tensor in graph.initializer:
        if tensor.name in tables:
            long = (np.cos if tensor.name == "cos" else np.sin)(angles)
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate([tables[tensor.name][:length], long]), tensor.name))
    for node in graph.node:
        node.input[:] = ["turning.places" if name == "position_ids" else name for name in node.input]
    value = numpy_helper.from_array(np.array([length], np.int64))
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend(
        [
            helper.make_node("Constant", [], ["turning.value"], value=value),
            helper.make_node("ReduceMax", ["position_ids"], ["turning.highest"], keepdims=0),
            helper.make_node("GreaterOrEqual", ["turning.highest", "turning.value"], ["turning.is_long"]),
            helper.make_node("Cast", ["turning.is_long"], ["turning.one"], to=INT64),
            helper.make_node("Mul", ["turning.one", "turning.value"], ["turning.shift"]),
            helper.make_node("Add", ["position_ids", "turning.shift"], ["turning.places"]),
            *kept,
        ]
    )


def _without_past(model, config):
    """The graph with empty caches inside instead of inputs."""
    pasts = [value for value in model.graph.input if value.name.startswith("past_key_values.")]
    for value in pasts:
        shape = (1, config["num_key_value_heads"], 0, config["head_dim"])
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), value.name))
        model.graph.input.remove(value)
    return model


def merged_graph(config, seed=0, forgets=False):
    """As older exporters write a decoder: two graphs in one, of which an input says whether there is a cache.

    The half that begins a text does not read its caches. With ``forgets`` the other half is that one, too.
    """
    plain = stock_graph(config, seed)
    names = [template % n for n in range(config["num_hidden_layers"]) for template in _Builder.PAST]
    halves = {"then_branch": _half(plain, "later.", names if forgets else ()), "else_branch": _half(plain, "first.", names)}
    outputs = [value.name for value in plain.graph.output]
    choice = helper.make_node("If", ["use_cache_branch"], outputs, **halves)
    inputs = [*plain.graph.input, helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])]
    graph = helper.make_graph([choice], "merged", inputs, plain.graph.output)
    return helper.make_model(graph, opset_imports=plain.opset_import, ir_version=IR_VERSION, producer_name="tests")


def _half(plain, prefix, without):
    """A branch: nodes with names of their own over the outer inputs, caches in ``without`` being empty."""
    inner = onnx.compose.add_prefix_graph(plain.graph, prefix, rename_inputs=False)
    empty = [f"{prefix}{name}" for name in without]
    shapes = {
        value.name: [1, value.type.tensor_type.shape.dim[1].dim_value, 0, TINY["head_dim"]] for value in plain.graph.input[3:]
    }
    constants = [numpy_helper.from_array(np.zeros(shapes[n], np.float32), e) for n, e in zip(without, empty, strict=True)]
    for node in inner.node:
        node.input[:] = [f"{prefix}{name}" if name in without else name for name in node.input]
    return helper.make_graph(inner.node, prefix, [], inner.output, [*inner.initializer, *constants])


class _Builder:
    PAST = ("past_key_values.%d.key", "past_key_values.%d.value")
    sees_ahead, num_tokens = False, "S"

    def __init__(self, config, weights, attention, cache, names):
        self.config, self.weights, self.attention, self.cache, self.names = config, weights, attention, cache, names
        self.parts = GraphParts()
        self.node = self.parts.node
        self.heads, self.kv_heads, self.size = (config[n] for n in ("num_attention_heads", "num_key_value_heads", "head_dim"))

    def build(self, extra_inputs, shares_a_scale, keeps):
        embedding = self.weight("model.embed_tokens.weight")
        self.tables()
        x = self.node("Gather", [embedding, "input_ids"], "embedded")
        if shares_a_scale:
            rounded = [f"rounded.{part}" for part in ("values", "scale", "zero")]
            self.node("DynamicQuantizeLinear", [x], rounded)
            x = self.node("DequantizeLinear", rounded, "rounded")
        if self.attention != "gqa":
            self.plain_inputs()
        if self.attention != "plain":
            self.gqa_inputs()
        for layer in range(self.config["num_hidden_layers"]):
            x = self.layer(layer, x)
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        x = self.norm("model.norm", x)
        if keeps is not None:
            first = self.node(
                "Reshape", [self.node("Neg", ["num_logits_to_keep"], "minus_kept"), self.ints("vector", 1)], "first_kept"
            )
            x = self.node("Slice", [x, first, self.ints("end", 2**62), self.ints("rows_axis", 1)], "kept_rows")
        self.node("MatMul", [x, self.parts.constant("head", head.T)], "logits")
        return self.model(extra_inputs, keeps)

    def layer(self, layer, x):
        prefix = f"model.layers.{layer}"
        normed = self.norm(f"{prefix}.input_layernorm", x)
        q, k, v = (self.linear(f"{prefix}.self_attn.{n}_proj", normed) for n in "qkv")
        mixed = (self.plain if self.attention == "plain" else self.gqa)(layer, prefix, q, k, v)
        x = self.node("Add", [x, self.linear(f"{prefix}.self_attn.o_proj", mixed)], f"{prefix}.attended")
        normed = self.norm(f"{prefix}.post_attention_layernorm", x)
        gate = self.linear(f"{prefix}.mlp.gate_proj", normed)
        silu = self.node("Mul", [gate, self.node("Sigmoid", [gate], f"{prefix}.sigmoid")], f"{prefix}.silu")
        product = self.node("Mul", [silu, self.linear(f"{prefix}.mlp.up_proj", normed)], f"{prefix}.product")
        return self.node("Add", [x, self.linear(f"{prefix}.mlp.down_proj", product)], f"{prefix}.out")

    def plain(self, layer, prefix, q, k, v):
        q, k = (self.turned(f"{prefix}.{n}", self.split(f"{prefix}.{n}", x, h)) for n, x, h in self.both(q, k))
        keys = self.cached(layer, 0, f"{prefix}.k", k)
        values = self.cached(layer, 1, f"{prefix}.v", self.split(f"{prefix}.v", v, self.kv_heads))
        scores = self.node("MatMul", [q, self.node("Transpose", [keys], f"{keys}.T", perm=[0, 1, 3, 2])], f"{prefix}.products")
        scaled = self.node("Mul", [scores, self.number(f"{prefix}.scale", self.size**-0.5)], f"{prefix}.scaled")
        masked = self.node("Add", [scaled, "mask"], f"{prefix}.masked")
        shares = self.node("Softmax", [masked], f"{prefix}.shares", axis=-1)
        mixed = self.node("MatMul", [shares, values], f"{prefix}.mixed")
        rows = self.node("Transpose", [mixed], f"{prefix}.rows", perm=[0, 2, 1, 3])
        return self.node("Reshape", [rows, self.ints(f"{prefix}.flat", 0, 0, self.heads * self.size)], f"{prefix}.joined")

    def both(self, q, k):
        return ("q", q, self.heads), ("k", k, self.kv_heads)

    def cached(self, layer, kind, name, x):
        """The past with the new rows behind it is the present; every query head's copy of it comes back."""
        x = self.node("Cast", [x], f"{name}.stored", to=self.cache)
        present = self.node("Concat", [self.names[kind] % layer, x], self.names[2 + kind] % layer, axis=2)
        read = self.node("Cast", [present], f"{name}.read", to=FLOAT)
        apart = self.node("Unsqueeze", [read, self.ints(f"{name}.axis", 2)], f"{name}.apart")
        tiled = self.node("Tile", [apart, self.ints(f"{name}.times", 1, 1, self.heads // self.kv_heads, 1, 1)], f"{name}.tiled")
        return self.node("Reshape", [tiled, self.ints(f"{name}.shape", 0, self.heads, -1, self.size)], f"{name}.all")

    def split(self, name, x, heads):
        rows = self.node("Reshape", [x, self.ints(f"{name}.heads", 0, 0, heads, self.size)], f"{name}.rows_of_heads")
        return self.node("Transpose", [rows], f"{name}.split", perm=[0, 2, 1, 3])

    def turned(self, name, x):
        half = self.size // 2
        ends = [self.ints(f"{name}.{n}", n) for n in (0, half, self.size)]
        axis = self.ints(f"{name}.last", 3)
        low = self.node("Slice", [x, ends[0], ends[1], axis], f"{name}.low")
        high = self.node("Slice", [x, ends[1], ends[2], axis], f"{name}.high")
        crossed = self.node("Concat", [self.node("Neg", [high], f"{name}.minus"), low], f"{name}.crossed", axis=3)
        parts = [self.node("Mul", [x, "cosines"], f"{name}.cos"), self.node("Mul", [crossed, "sines"], f"{name}.sin")]
        return self.node("Add", parts, f"{name}.turned")

    def plain_inputs(self):
        """Cosines and sines of the positions, and what is added to scores that look ahead or at what is masked."""
        for name, table in (("cosines", "cos"), ("sines", "sin")):
            half = self.node("Gather", [table, "position_ids"], f"{name}.half")
            whole = self.node("Concat", [half, half], f"{name}.whole", axis=2)
            self.node("Unsqueeze", [whole, self.ints(f"{name}.axis", 1)], name)
        total = self.node("Gather", [self.node("Shape", ["attention_mask"], "mask.shape"), self.int("one", 1)], "total")
        rows = self.node("Gather", [self.node("Shape", ["input_ids"], "ids.shape"), "one"], "rows")
        zero = self.int("zero", 0)
        columns = self.node("Range", [zero, total, "one"], "columns")
        first = self.node("Sub", [total, rows], "first")
        own = self.node("Unsqueeze", [self.node("Range", [first, total, "one"], "own"), self.ints("own.axis", 1)], "own.rows")
        ahead = self.node("Greater", [columns, own], "ahead")
        unseen = self.node("Equal", ["attention_mask", zero], "unseen")
        unseen = self.node("Unsqueeze", [unseen, self.ints("unseen.axes", 1, 2)], "unseen.rows")
        hidden = unseen if self.sees_ahead else self.node("Or", [ahead, unseen], "hidden")
        self.node("Where", [hidden, self.number("lowest", LOWEST), self.number("nothing", 0.0)], "mask")

    def gqa(self, layer, prefix, q, k, v):
        """The node turns positions itself, or finds them turned; it computes in the type of its caches."""
        tables, turns = ["cos", "sin"], self.attention == "gqa"
        if not turns:
            q, k = (self.turned_rows(f"{prefix}.{n}", x, h) for n, x, h in self.both(q, k))
            tables = []
        if self.cache == HALF:
            q, k, v = (self.node("Cast", [x], f"{prefix}.{n}.half", to=HALF) for n, x in zip("qkv", (q, k, v), strict=True))
            tables = [f"{table}.half" for table in tables]
        past = [template % layer for template in self.names[:2]]
        outputs = [f"{prefix}.node", *(template % layer for template in self.names[2:])]
        heads = {"num_heads": self.heads, "kv_num_heads": self.kv_heads, "do_rotary": int(turns)}
        out = self.node(
            "GroupQueryAttention", [q, k, v, *past, "seqlens_k", "room", *tables], outputs, "com.microsoft", **heads
        )
        return self.node("Cast", [out], f"{prefix}.mixed", to=FLOAT)

    def turned_rows(self, name, x, heads):
        turned = self.turned(name, self.split(name, x, heads))
        rows = self.node("Transpose", [turned], f"{name}.turned_rows", perm=[0, 2, 1, 3])
        return self.node("Reshape", [rows, self.ints(f"{name}.width", 0, 0, heads * self.size)], f"{name}.packed")

    def gqa_inputs(self):
        """As the model builder of onnxruntime-genai derives them from the mask."""
        counted = self.node("ReduceSum", ["attention_mask", self.ints("ones", 1)], "counted", keepdims=1)
        self.node("Cast", [self.node("Sub", [counted, "ones"], "last")], "seqlens_k", to=TensorProto.INT32)
        length = self.node("Gather", [self.node("Shape", ["attention_mask"], "gqa.shape"), self.int("second", 1)], "length")
        self.node("Cast", [length], "room", to=TensorProto.INT32)

    def tables(self):
        frequencies = self.config["rope_theta"] ** -(np.arange(0, self.size, 2) / self.size)
        angles = np.outer(np.arange(self.config["max_position_embeddings"]), frequencies)
        for name, values in (("cos", np.cos(angles)), ("sin", np.sin(angles))):
            self.parts.constant(name, values.astype(np.float32))
            self.parts.constant(f"{name}.half", values.astype(np.float16))

    def norm(self, name, x):
        squared = self.node("Mul", [x, x], f"{name}.squared")
        mean = self.node("ReduceMean", [squared, self.ints(f"{name}.axis", -1)], f"{name}.mean")
        kept = self.node("Add", [mean, self.number(f"{name}.epsilon", self.config["rms_norm_eps"])], f"{name}.kept")
        normed = self.node("Div", [x, self.node("Sqrt", [kept], f"{name}.root")], f"{name}.normed")
        return self.node("Mul", [normed, self.weight(f"{name}.weight")], name)

    def linear(self, name, x):
        return self.node("MatMul", [x, self.parts.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)], name)

    def weight(self, name):
        return self.parts.constant(name, self.weights[name])

    def ints(self, name, *values):
        return self.parts.constant(name, np.array(values, np.int64))

    def int(self, name, value):
        return self.parts.constant(name, np.array(value, np.int64))

    def number(self, name, value):
        return self.parts.constant(name, np.array(value, np.float32))

    def model(self, extra_inputs, keeps):
        value, layers = helper.make_tensor_value_info, range(self.config["num_hidden_layers"])
        past, present = ([t % n for n in layers for t in part] for part in (self.names[:2], self.names[2:]))
        rows = ["B", self.num_tokens]
        inputs = [value("input_ids", INT64, rows), value("attention_mask", INT64, ["B", "T"])]
        if self.attention != "gqa":
            inputs.append(value("position_ids", INT64, rows))
        inputs += [value(name, self.cache, ["B", self.kv_heads, "P", self.size]) for name in past]
        inputs += [value(name, INT64, ["B"]) for name in extra_inputs]
        inputs += [] if keeps is None else [value("num_logits_to_keep", INT64, keeps)]
        outputs = [value("logits", FLOAT, [*rows, self.config["vocab_size"]])]
        outputs += [value(name, self.cache, ["B", self.kv_heads, "T", self.size]) for name in present]
        graph = helper.make_graph(self.parts.nodes, "stock", inputs, outputs, list(self.parts.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tests")
