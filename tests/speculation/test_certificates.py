"""Files of certificates, checked before anything is started."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from speculation.certificates import ClientTls
from speculation.errors import ConfigurationError
from tests.support.certificates import made, signed_by_itself

PAIRS = pytest.mark.parametrize(
    ("config", "cert", "key", "more"),
    [
        (VerifierConfig, "tls_cert", "tls_key", {}),
        (AgentConfig, "tls_cert", "tls_key", {}),
        (AgentConfig, "verifier_cert", "verifier_cert_key", {"verifier_ca": "ca"}),
    ],
)


@pytest.fixture
def files(tmp_path):
    return made(tmp_path, "service")


def refused(config, **given):
    with pytest.raises(ConfigurationError) as error:
        config(**given)
    return str(error.value)


@PAIRS
def test_half_a_pair_is_refused(config, cert, key, more, files):
    more = dict.fromkeys(more, files.ca)
    assert f"{cert} and {key}: one is of no use without the other" in refused(config, **{cert: files.cert}, **more)
    assert f"{cert} and {key}: one is of no use without the other" in refused(config, **{key: files.key}, **more)
    config(**{cert: files.cert, key: files.key}, **more)


@PAIRS
def test_a_file_that_is_missing_or_no_pem_is_refused_by_name(config, cert, key, more, files, tmp_path):
    more = dict.fromkeys(more, files.ca)
    gone, noise = tmp_path / "gone.pem", tmp_path / "noise.pem"
    noise.write_bytes(bytes(range(256)))
    assert f"{cert}: {gone} cannot be read: No such file" in refused(config, **{cert: gone, key: files.key}, **more)
    assert f"{key}: {gone} cannot be read: No such file" in refused(config, **{cert: files.cert, key: gone}, **more)
    assert f"{cert}: {noise} must be a certificate in PEM" in refused(config, **{cert: noise, key: files.key}, **more)
    assert f"{key}: {noise} must be a private key in PEM" in refused(config, **{cert: files.cert, key: noise}, **more)
    assert f"{key}: {files.cert} must be a private key" in refused(config, **{cert: files.cert, key: files.cert}, **more)


@PAIRS
def test_a_key_of_another_certificate_is_refused(config, cert, key, more, files, tmp_path):
    other = made(tmp_path, "other")
    more = dict.fromkeys(more, files.ca)
    assert "must be a certificate and its own key" in refused(config, **{cert: files.cert, key: other.key}, **more)


@PAIRS
def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(config, cert, key, more, files, tmp_path):
    loaded = serialization.load_pem_private_key(files.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    way = serialization.BestAvailableEncryption(b"sesame")
    locked.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, way))
    more = dict.fromkeys(more, files.ca)
    assert "without a password" in refused(config, **{cert: files.cert, key: locked}, **more)


@pytest.mark.parametrize(
    ("config", "name"), [(VerifierConfig, "tls_client_ca"), (AgentConfig, "verifier_ca")], ids=["verifier", "agent"]
)
def test_an_authority_that_is_none_is_refused(config, name, files, tmp_path):
    noise, damaged = tmp_path / "noise.pem", tmp_path / "damaged.pem"
    noise.write_text("sesame")
    damaged.write_text(files.ca.read_text().replace("MII", "XII", 1))
    assert f"{name}: {noise} must be a certificate in PEM" in refused(config, **{name: noise})
    assert f"{name}: {damaged} holds a certificate that cannot be read" in refused(config, **{name: damaged})
    assert f"{name}: {tmp_path} cannot be read" in refused(config, **{name: tmp_path})


def test_what_means_nothing_without_tls_is_refused(files):
    assert "tls_client_ca: without tls_cert there is no TLS" in refused(VerifierConfig, tls_client_ca=files.ca)
    given = {"verifier_cert": files.cert, "verifier_cert_key": files.key}
    assert "verifier_cert: without verifier_ca" in refused(AgentConfig, **given)


def test_the_agents_way_to_its_verifier_is_in_one_value(files):
    assert AgentConfig().verifier_tls is None
    assert AgentConfig(verifier_ca=files.ca).verifier_tls == ClientTls(files.ca)
    config = AgentConfig(verifier_ca=files.ca, verifier_cert=files.cert, verifier_cert_key=files.key)
    assert config.verifier_tls == ClientTls(files.ca, files.cert, files.key)


KINDS = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}
NOT_GRPC = ("Ed25519", "P-521", "secp256k1")


@pytest.mark.parametrize("kind", KINDS)
@PAIRS
def test_a_kind_of_key_that_grpc_does_not_take_is_refused_where_grpc_speaks(config, cert, key, more, kind, files, tmp_path):
    own = signed_by_itself(tmp_path, KINDS[kind]())
    given = {cert: own.cert, key: own.key} | dict.fromkeys(more, files.ca)
    if kind not in NOT_GRPC or (config, cert) == (AgentConfig, "tls_cert"):
        config(**given)
    else:
        assert f"{cert}: the key of {own.cert} is of a kind that gRPC makes no connection with" in refused(config, **given)
