"""Lists of prices, as clouds print them, and what a place costs by them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.prices import PriceList, priced, read_prices

NOW = datetime(2026, 11, 28, 6, 0, tzinfo=UTC)
PLACE = Place(machine="g5.xlarge", executor=Executor.KUBERNETES)
SPOT = replace(PLACE, capacity=Capacity.SPOT, deadline_seconds=3600.0)


def change(zone: str, price: str, at: str, machine: str = "g5.xlarge") -> dict[str, str]:
    """An entry as `aws ec2 describe-spot-price-history` prints it."""
    return {
        "AvailabilityZone": zone,
        "InstanceType": machine,
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": price,
        "Timestamp": at,
    }


def product(price: dict[str, str], **attributes: str) -> str:
    """A product as `aws pricing get-products` prints it: JSON within JSON."""
    plain = {"instanceType": "g5.xlarge", "operatingSystem": "Linux", "tenancy": "Shared",
             "preInstalledSw": "NA", "capacitystatus": "Used"}  # fmt: skip
    term = {"priceDimensions": {"R": {"unit": "Hrs", "pricePerUnit": price}}}
    value = {"product": {"attributes": plain | attributes}, "terms": {"OnDemand": {"T": term}}}
    return json.dumps(value)


OURS = {
    "currency": "USD",
    "machines": {"g5.xlarge": {"on_demand": 1.006, "spot": {"a": 0.3, "b": 0.5, "c": 0.4}}},
}


def test_spot_prices_of_aws_are_the_newest_change_of_each_zone() -> None:
    listed = read_prices(
        {
            "SpotPriceHistory": [
                change("us-east-1a", "0.420000", "2026-11-28T05:10:04.000Z"),
                change("us-east-1a", "0.390000", "2026-11-27T01:00:00.000Z"),
                change("us-east-1b", "0.510000", "2026-11-26T00:00:00+00:00"),
                change("us-east-1b", "9.1", "2026-11-28T00:00:00Z", "p5.48xlarge"),
            ]
        },
        NOW,
    )

    assert listed.spot == {
        "g5.xlarge": {"us-east-1a": 0.42, "us-east-1b": 0.51},
        "p5.48xlarge": {"us-east-1b": 9.1},
    }


def test_on_demand_prices_of_aws_are_of_the_plain_machine() -> None:
    products = [
        product({"USD": "1.0060000000"}),
        product({"USD": "1.9000000000"}, operatingSystem="Windows"),
        product({"USD": "0.0000000000"}, capacitystatus="AllocatedCapacityReservation"),
    ]

    assert read_prices({"PriceList": products}, NOW).on_demand == {"g5.xlarge": 1.006}


def test_a_place_costs_what_fresh_lists_say() -> None:
    ours = read_prices({**OURS, "at": "2026-11-28T05:00:00Z"}, NOW - timedelta(days=9))

    found, said = priced(SPOT, [ours], NOW)

    assert (found.usd_per_hour, found.spot_usd_per_hour) == (1.006, 0.4)
    assert said == "g5.xlarge: 1.006 USD an hour, spot 0.4 (0.3 to 0.5 in 3 zones)"


def test_the_specs_own_prices_stand_in_for_what_no_fresh_list_has() -> None:
    old = read_prices(OURS, NOW - timedelta(days=2))
    spot_only = PriceList(NOW, spot={"g5.xlarge": {"a": 0.3}})
    own = replace(SPOT, usd_per_hour=2.0, spot_usd_per_hour=0.7)

    assert priced(own, [old], NOW) == (
        own,
        "g5.xlarge: 2 USD an hour (train.usd_per_hour), spot 0.7 (train.spot_usd_per_hour)",
    )
    assert priced(own, [old, spot_only], NOW)[0].spot_usd_per_hour == 0.3
    dear, said = priced(replace(PLACE, usd_per_hour=2.0), [], NOW)
    assert (dear.usd_per_hour, said) == (2.0, "g5.xlarge: 2 USD an hour (train.usd_per_hour)")


def test_a_place_that_names_no_machine_is_as_it_was() -> None:
    assert priced(Place(), [read_prices(OURS, NOW)], NOW) == (Place(), "")


@pytest.mark.parametrize(
    ("place", "lists", "says"),
    [
        (PLACE, [], "RATCHET_PRICES names no list"),
        (PLACE, [read_prices(OURS, NOW - timedelta(hours=49))], "the newest is 49 h old"),
        (PLACE, [read_prices(OURS, NOW + timedelta(hours=3))], "from 3:00:00 ahead of this clock"),
        (replace(PLACE, machine="x1"), [read_prices(OURS, NOW)], "none of 1 lists has it"),
        (SPOT, [PriceList(NOW, {"g5.xlarge": 1.0})], "none of 1 lists has it"),
    ],
)
def test_a_price_that_is_not_known_is_asked_for(
    place: Place, lists: list[PriceList], says: str
) -> None:
    with pytest.raises(Rejected, match=rf"no .*usd_per_hour of .*{says}\); fetch it anew"):
        priced(place, lists, NOW)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "no list of prices"),
        ({**OURS, "currency": "EUR"}, "currency: found 'EUR', expected USD"),
        ({**OURS, "at": "yesterday"}, "at: found 'yesterday', expected a moment"),
        ({**OURS, "at": "2026-11-28T05:00:00"}, "expected a moment and its zone"),
        ({"machines": {"m": 1.0}}, "machines.m: found 1.0, expected on_demand and spot"),
        ({"machines": {"m": {"spot": 1.0}}}, "machines.m.spot: found 1.0"),
        ({"machines": {"m": {"on_demand": 0}}}, "machines.m.on_demand: found 0, expected dollars"),
        ({"machines": {"m": {"on_demand": -1}}}, "found -1"),
        ({"machines": {"m": {"spot": {"a": "nan"}}}}, "machines.m.spot.a: found 'nan'"),
        ({"machines": {"m": {"spot": {"a": "free"}}}}, "found 'free'"),
        ({"machines": {"m": {"spot": {"a": None}}}}, "found None"),
        ({"machines": {"m": {"on_demand": 41_000}}}, "found 41000"),
        ({"SpotPriceHistory": [{"SpotPrice": "1"}]}, r"SpotPriceHistory\[0\]: expected Instance"),
        ({"SpotPriceHistory": [change("a", "0.0", "2026-11-28T05:00Z")]}, "found '0.0'"),
        (
            {"PriceList": [product({"USD": "1.006"}), product({"USD": "1.2"})]},
            r"PriceList\[1\]: g5.xlarge costs 1.006 and 1.2: fetch the list of one region",
        ),
        ({"PriceList": ["{"]}, r"PriceList\[0\]: expected a product"),
        ({"PriceList": [product({"CNY": "7.1"})]}, "found prices in CNY, expected USD"),
    ],
)
def test_what_is_no_price_is_named(value: Any, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        read_prices(value, NOW)
