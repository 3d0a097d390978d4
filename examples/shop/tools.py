"""Five tools of a small shop: an enum, a list, an optional parameter, and plain ones."""

from __future__ import annotations

from typing import Literal

from rolecraft.tools import ToolFailure, tool

STOCK = {"lamp": 12, "kettle": 5, "mug": 40, "chair": 7, "desk": 3, "rug": 9, "clock": 15, "mirror": 4}
PRICES = {
    "lamp": 40.0,
    "kettle": 31.5,
    "mug": 8.0,
    "chair": 65.0,
    "desk": 120.0,
    "rug": 54.0,
    "clock": 22.0,
    "mirror": 35.0,
}
RATES = {"EUR": 1.0, "USD": 1.1, "GBP": 0.85}
ORDERS = {"A17": "shipped", "B42": "waiting for payment", "C08": "delivered", "D33": "cancelled"}
DAYS = {"standard": 5, "express": 2, "pickup": 0}


def known(item: str) -> str:
    """Return the item; raises ToolFailure for one that the shop does not sell, which the model reads and may repair."""
    if item not in PRICES:
        raise ToolFailure(f"the shop does not sell {item!r}; it sells {', '.join(PRICES)}")
    return item


@tool(pure=True)
def stock(item: str) -> int:
    """How many pieces of an item are in stock.

    Args:
        item: the item, in lower case and singular, such as lamp
    """
    return STOCK[known(item)]


@tool(pure=True)
def price(item: str, currency: Literal["EUR", "USD", "GBP"] = "EUR") -> float:
    """The price of one piece of an item.

    Args:
        item: the item, in lower case and singular, such as lamp
        currency: the currency of the price
    """
    return round(PRICES[known(item)] * RATES[currency], 2)


@tool(pure=True)
def total(items: list[str]) -> float:
    """The total price in EUR of several items together.

    Args:
        items: the items, each in lower case and singular, such as lamp
    """
    return sum(PRICES[known(item)] for item in items)


@tool(pure=True)
def order_status(order_id: str) -> str:
    """The status of an order.

    Args:
        order_id: the order's id, such as A17
    """
    if order_id not in ORDERS:
        raise ToolFailure(f"there is no order {order_id!r}")
    return ORDERS[order_id]


@tool(pure=True)
def delivery_days(method: Literal["standard", "express", "pickup"]) -> int:
    """How many days a delivery takes.

    Args:
        method: how the order is delivered
    """
    return DAYS[method]
