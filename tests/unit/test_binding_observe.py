"""How a binding's addresses, certificates and selectors are read."""

import pytest

from etcd_operator.binding.content import endpoint_of
from etcd_operator.binding.observe import _identity, _selector
from etcd_operator.etcd.errors import EtcdError

ACCESS = {"ca.crt": b"ca", "tls.crt": b"cert", "tls.key": b"key"}


def test_an_etcd_without_tls_asks_for_no_certificate() -> None:
    assert _identity({"endpoints": b"http://a.ns.svc:2379"}) is None
    assert _identity({}) is None
    assert _identity(ACCESS)


@pytest.mark.parametrize(
    ("server", "address", "encrypted"),
    [
        ("https://a.ns.svc:2379", "a.ns.svc:2379", True),
        ("http://a.ns.svc", "a.ns.svc:2379", False),
        ("10.0.0.1:2379", "10.0.0.1:2379", False),
        ("https://[fd00::1]:2379", "[fd00::1]:2379", True),
    ],
)
def test_addresses_are_read_as_etcd_clients_do(server: str, address: str, encrypted: bool) -> None:
    endpoint = endpoint_of(server, _identity(ACCESS))
    assert (endpoint.address, bool(endpoint.tls)) == (address, encrypted)


@pytest.mark.parametrize("server", ["https://[::1", "https://h:port", "https://h:99999", "https://"])
def test_what_is_no_address_is_told(server: str) -> None:
    with pytest.raises(EtcdError, match="is no address") as refused:
        endpoint_of(server, None)
    assert refused.value.kind == "unreachable"


def test_a_selector_is_written_as_the_api_takes_it() -> None:
    expressions = [
        {"key": "a", "operator": "In", "values": ["1", "2"]},
        {"key": "b", "operator": "NotIn", "values": ["3"]},
        {"key": "c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    assert _selector({"matchLabels": {"x": "y"}, "matchExpressions": expressions}) == (
        "x=y,a in (1,2),b notin (3),c,!d"
    )
