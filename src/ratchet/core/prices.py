"""What machines cost by the hour: lists that clouds print, and ours.

{"currency": "USD", "machines": {"g5.xlarge": {"on_demand": 1.0, "spot": {"us-east-1a": 0.4}}}}
aws ec2 describe-spot-price-history ...
aws pricing get-products --service-code AmazonEC2 ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import isfinite
from statistics import median
from typing import Any

from ratchet.core.errors import Rejected
from ratchet.core.place import Capacity, Place

# Prices of spot follow demand over days; an older list says what was.
AGE_MAX = timedelta(days=1)
# Clocks of two machines may be so far apart.
AHEAD_MAX = timedelta(minutes=10)
# A dearer machine than any: what is above is cents, or another currency.
USD_MAX = 10_000.0


@dataclass(frozen=True, slots=True)
class PriceList:
    """Dollars an hour, by kind of machine."""

    at: datetime
    """When it was fetched."""
    on_demand: Mapping[str, float] = field(default_factory=dict)
    spot: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By zone."""


def read_prices(value: object, at: datetime) -> PriceList:
    """A list in one of the three forms.

    Raises `Rejected` for another form, another currency, and what is no price.
    """
    given: Any = value
    match given:
        case {"SpotPriceHistory": list(entries)}:
            return PriceList(at, spot=_spot_of_aws(entries))
        case {"PriceList": list(products)}:
            return PriceList(at, on_demand=_on_demand_of_aws(products))
        case {"machines": dict(machines)}:
            return _ours(machines, given, at)
    raise Rejected(
        "no list of prices: expected {machines: ...}, or what `aws ec2 "
        "describe-spot-price-history` or `aws pricing get-products` prints"
    )


def _ours(machines: Mapping[str, object], value: Mapping[str, object], at: datetime) -> PriceList:
    if (currency := value.get("currency", "USD")) != "USD":
        raise Rejected(f"currency: found {currency!r}, expected USD: budgets are in dollars")
    if "at" in value:
        at = _moment(value["at"], "at")
    on_demand, spot = {}, {}
    for name, given in machines.items():
        if not isinstance(given, dict) or not given.keys() <= {"on_demand", "spot"}:
            raise Rejected(f"machines.{name}: found {given!r:.60}, expected on_demand and spot")
        if "on_demand" in given:
            on_demand[name] = _price(given["on_demand"], f"machines.{name}.on_demand")
        zones = given.get("spot", {})
        if not isinstance(zones, dict):
            raise Rejected(f"machines.{name}.spot: found {zones!r:.60}, expected {{ZONE: PRICE}}")
        spot[name] = {z: _price(p, f"machines.{name}.spot.{z}") for z, p in zones.items()}
    return PriceList(at, on_demand, spot)


def _spot_of_aws(entries: Sequence[object]) -> dict[str, dict[str, float]]:
    """The newest price of each machine in each zone: entries are changes, in any order."""
    newest: dict[tuple[str, str], tuple[datetime, float]] = {}
    for number, entry in enumerate(entries):
        place = f"SpotPriceHistory[{number}]"
        match entry:
            case {"InstanceType": str(machine), "AvailabilityZone": str(zone),
                  "SpotPrice": usd, "Timestamp": changed}:  # fmt: skip
                key, price = (machine, zone), _price(usd, f"{place}.SpotPrice")
                since = _moment(changed, f"{place}.Timestamp")
            case _:
                wanted = "InstanceType, AvailabilityZone, SpotPrice and Timestamp"
                raise Rejected(f"{place}: expected {wanted}")
        if key not in newest or newest[key][0] < since:
            newest[key] = since, price
    found: dict[str, dict[str, float]] = {}
    for (machine, zone), (_, price) in newest.items():
        found.setdefault(machine, {})[zone] = price
    return found


# Besides the plain machine there are those with licences, reservations, and of one's own.
_PLAIN = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}


def _on_demand_of_aws(products: Sequence[object]) -> dict[str, float]:
    """One price a machine: a list of several regions has several."""
    found: dict[str, float] = {}
    for place, machine, price in _plain_of_aws(products):
        if found.setdefault(machine, price) != price:
            raise Rejected(
                f"{place}: {machine} costs {found[machine]:g} and {price:g}: fetch the list of one "
                "region (Field=regionCode)"
            )
    return found


def _plain_of_aws(products: Sequence[object]) -> Iterator[tuple[str, str, float]]:
    for number, text in enumerate(products):
        place = f"PriceList[{number}]"
        try:
            product: Any = json.loads(text) if isinstance(text, str) else text
            attributes = product["product"]["attributes"]
            machine = attributes["instanceType"]
            if any(attributes.get(key, plain) != plain for key, plain in _PLAIN.items()):
                continue
            [term] = product["terms"]["OnDemand"].values()
            [dimension] = term["priceDimensions"].values()
            prices = dimension["pricePerUnit"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Rejected(
                f"{place}: expected a product and its hour's price ({error!r})"
            ) from None
        if "USD" not in prices:
            raise Rejected(f"{place}: found prices in {', '.join(prices)}, expected USD")
        yield place, str(machine), _price(prices["USD"], f"{place} ({machine})")


def _price(value: object, place: str) -> float:
    try:
        price = float(value) if isinstance(value, int | float | str) else -1.0
    except ValueError:
        price = -1.0
    if not (isfinite(price) and 0.0 < price <= USD_MAX):
        raise Rejected(f"{place}: found {value!r:.40}, expected dollars an hour above 0")
    return price


def _moment(value: object, place: str) -> datetime:
    fault = f"{place}: found {value!r:.40}, expected a moment and its zone: 2026-11-28T06:00:00Z"
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise Rejected(fault) from None
    if moment.tzinfo is None:
        raise Rejected(fault)
    return moment


def priced(place: Place, lists: Sequence[PriceList], now: datetime) -> tuple[Place, str]:
    """A place with what its machine costs now, and where that is from.

    Prices of the spec stand in for those that no list has, or only an old one.  Raises `Rejected`
    when neither says what the place needs.
    """
    if not place.machine:
        return place, ""
    fresh = [each for each in lists if -AHEAD_MAX <= now - each.at <= AGE_MAX]
    on_demand = [each.on_demand[place.machine] for each in fresh if place.machine in each.on_demand]
    zones = {zone: usd for each in fresh for zone, usd in each.spot.get(place.machine, {}).items()}
    # Where it will be is not known before; the median zone is neither lucky nor unlucky.
    spot = median(zones.values()) if zones else place.spot_usd_per_hour
    usual = on_demand[-1] if on_demand else place.usd_per_hour
    found = replace(place, usd_per_hour=usual, spot_usd_per_hour=spot)
    needs_spot = place.capacity is Capacity.SPOT and place.deadline_seconds > 0
    if not found.usd_per_hour or (needs_spot and not spot):
        kind = "spot_usd_per_hour" if found.usd_per_hour else "usd_per_hour"
        having = [
            e for e in lists if place.machine in (e.spot if found.usd_per_hour else e.on_demand)
        ]
        raise Rejected(
            f"train.machine: no {kind} of {place.machine} that is younger than a day "
            f"({_why(lists, having, now)}); fetch it anew, or set train.{kind}"
        )
    return found, _said(found, bool(on_demand), zones)


def _why(lists: Sequence[PriceList], having: Sequence[PriceList], now: datetime) -> str:
    if not lists:
        return "RATCHET_PRICES names no list"
    if not having:
        return f"none of {len(lists)} lists has it"
    age = min(now - each.at for each in having)
    if age < -AHEAD_MAX:
        return f"the list is from {-age} ahead of this clock"
    return f"the newest is {age.total_seconds() / 3600:.0f} h old"


def _said(place: Place, is_listed: bool, zones: Mapping[str, float]) -> str:
    text = f"{place.machine}: {place.usd_per_hour:g} USD an hour"
    text += "" if is_listed else " (train.usd_per_hour)"
    if zones:
        low, high = min(zones.values()), max(zones.values())
        text += f", spot {place.spot_usd_per_hour:g} ({low:g} to {high:g} in {len(zones)} zones)"
    elif place.spot_usd_per_hour:
        text += f", spot {place.spot_usd_per_hour:g} (train.spot_usd_per_hour)"
    return text
