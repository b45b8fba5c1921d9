"""Quantities and durations: read as Kubernetes and Go read them, refused where they would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_operator.api import Duration, Quantity


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1073741824", 2**30),
        (4096, 4096),
        ("8Gi", 8 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("500M", 500_000_000),
        ("128k", 128_000),
        ("1e3", 1000),
        ("2E", 2 * 10**18),
        ("2E3", 2000),
        ("1Ei", 2**60),
        ("100m", 1),
        (".5Ki", 512),
        ("1e999999999", 2**63 - 1),
        ("9Ei", 2**63 - 1),
        ("1e-999999999", 1),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str | int, count: int) -> None:
    assert Quantity(text).bytes == count


@pytest.mark.parametrize("text", ["", "Gi", "8GB", "8 Gi", "8gi", "1.2.3", "eight", "1e", "0x10", "8Gi\n"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        Quantity(text)


def test_quantities_compare_by_what_they_mean_and_keep_what_was_written() -> None:
    assert Quantity("1024Mi") == Quantity("1Gi")
    assert len({Quantity("1024Mi"), Quantity("1Gi")}) == 1
    assert Quantity("999Mi") < Quantity("1Gi") <= Quantity("1024Mi")
    assert str(Quantity("1024Mi")) == "1024Mi"
    assert Quantity("1") != Duration("1ms")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (5000, "5000"), (20480, "20Ki"), (25165312, "24Mi"), (3 * 2**30, "3072Mi")]
)
def test_a_count_of_bytes_is_told_for_a_persons_eyes(count: int, text: str) -> None:
    assert str(Quantity.from_bytes(count)) == text


@given(st.integers(min_value=0, max_value=2**62))
def test_a_told_count_is_off_by_five_percent_at_most(count: int) -> None:
    assert abs(Quantity.from_bytes(count).bytes - count) <= 0.05 * count


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("100ms", 100),
        ("1s", 1000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1m30s500ms", 90_500),
        ("2160h", 7_776_000_000),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, milliseconds: int) -> None:
    assert Duration(text).milliseconds() == milliseconds
    assert Duration(text).total_seconds() == milliseconds / 1000


@pytest.mark.parametrize("text", ["", "10", "1d", "-1s", "1 s", "s", "1.5h", "1us", "1h1m1s1ms1h", "1s\n"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        Duration(text)


def test_a_measure_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        Quantity("8Gi").value = 1
