"""What runs a model: what is there is used, and what is not is refused with what would be right."""

import sys

import numpy as np
import onnxruntime
import pytest

from cloud_verifier.config import load_config as verifier_config
from device_agent.build import draft_engine
from device_agent.config import AgentConfig
from device_agent.config import load_config as agent_config
from speculation.engines import self_test
from speculation.engines.base import Chunk
from speculation.engines.exports import ExportFolder
from speculation.engines.providers import Provider, execution_provider
from speculation.engines.stock import StockEngine
from speculation.errors import ConfigurationError, PackageError
from tests.speculation.engines.stock_graphs import export_folder
from tests.speculation.engines.tiny import tiny_package, token_ids

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
without_cuda = pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
with_cuda = pytest.mark.skipif(not HAS_CUDA, reason="this ONNX Runtime has no CUDA; onnxruntime-gpu has")
TOKENS = token_ids(40)


@pytest.mark.parametrize("load", [verifier_config, agent_config])
def test_a_service_runs_on_the_cpu_unless_it_is_told_otherwise(load, tmp_path, monkeypatch):
    assert load().provider is Provider.CPU
    assert load(flags={"provider": Provider.CUDA}).provider is Provider.CUDA
    file = tmp_path / "settings.toml"
    file.write_text('provider = "cuda"\n')
    assert load(file).provider is Provider.CUDA
    service = "VERIFIER" if load is verifier_config else "AGENT"
    monkeypatch.setenv(f"OUTRIDER_{service}_PROVIDER", "cpu")
    assert load(file).provider is Provider.CPU
    with pytest.raises(ConfigurationError, match="provider: Input should be 'cpu' or 'cuda'"):
        load(flags={"provider": "tpu"})


def test_the_cpu_is_always_there():
    assert execution_provider(Provider.CPU) == "CPUExecutionProvider"


@without_cuda
def test_a_provider_that_this_build_has_not_is_refused_with_those_that_it_has():
    there = ", ".join(onnxruntime.get_available_providers())
    said = f"provider cuda: this ONNX Runtime has {there}, but not CUDAExecutionProvider; the package onnxruntime-gpu"
    with pytest.raises(ConfigurationError, match=said):
        execution_provider(Provider.CUDA)


@without_cuda
@pytest.mark.parametrize("attention", ["plain", "gqa"])
def test_an_export_is_not_run_on_the_cpu_where_cuda_is_asked_for(tmp_path, attention):
    model = ExportFolder(export_folder(tmp_path, graphs={"model.onnx": {"attention": attention}}))
    with pytest.raises(ConfigurationError, match="onnxruntime-gpu"):
        model.engine("fp32", 2, 1, Provider.CUDA)


@without_cuda
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_provider_that_does_not_start_is_not_replaced_silently(tmp_path, monkeypatch):
    """ONNX Runtime goes on with the CPU where a provider's libraries cannot be loaded."""
    model = ExportFolder(export_folder(tmp_path))
    names = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: names)
    with pytest.raises(ConfigurationError, match=r"could not start CUDAExecutionProvider, and runs .*CPUExecutionProvider"):
        model.engine("fp32", 2, 1, Provider.CUDA)


def test_a_packed_graph_is_refused_on_cuda_with_what_would_be_right(tmp_path):
    package = tiny_package(tmp_path, variants=("fp32",))
    with pytest.raises(ConfigurationError, match=r"on the CPU only.*the variant torch .*or an export, or provider cpu"):
        package.engine("fp32", 2, 1, Provider.CUDA)


def test_without_the_extra_a_package_on_a_gpu_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    package = tiny_package(tmp_path, variants=("fp32",))
    with pytest.raises(PackageError, match=r"the variant torch needs the extra: pip install 'outrider\[torch\]'"):
        draft_engine(package, AgentConfig(provider="cuda"))


def test_the_setting_reaches_the_engine(tmp_path):
    package = tiny_package(tmp_path, variants=("fp32",))
    with pytest.raises(ConfigurationError, match="run on the CPU only"):
        draft_engine(package, AgentConfig(provider="cuda", variant="fp32"))
    assert draft_engine(package, AgentConfig(provider="cuda", variant="random")).description.name == "random"


@with_cuda
@pytest.mark.parametrize("attention", ["plain", "gqa"])
def test_an_export_on_cuda_is_the_model_that_it_is_on_the_cpu(tmp_path, attention, record_property):
    model = ExportFolder(export_folder(tmp_path, graphs={"model.onnx": {"attention": attention}}))
    engines = [model.engine("fp32", 6, 1, provider) for provider in Provider]
    logits = [engine.extend([Chunk(engine.open(), TOKENS, len(TOKENS))]) for engine in engines]
    assert isinstance(engines[1], StockEngine)
    assert np.abs(logits[0] - logits[1]).max() < 0.05
    found = self_test.run(engines[1])
    record_property("summary", f"{attention} export on cuda: exact {found.is_exact} {found.details}")
    assert self_test.make_exact(engines[1]).is_exact
