"""Tables of bindings and tunnels for a terminal."""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.mobileip_state import Binding, Sample, TunnelRow

_BINDINGS = ("agent", "home address", "BID", "care-of address", "label", "left, s", "state", "tunnel")
_TUNNELS = ("agent", "tunnel", "local", "remote", "kind")
_RATE_HEADS = ("out, pkt/s", "Mbit/s", "in, pkt/s", "Mbit/s")
_TOTAL_HEADS = ("out, pkt", "octets", "in, pkt", "octets", "MTU")
_NUMBERS = {"BID", "label", "left, s", *_RATE_HEADS, *_TOTAL_HEADS}
_TOTALS = (("sent_packets", ",d"), ("sent_bytes", ",d"), ("received_packets", ",d"), ("received_bytes", ",d"), ("mtu", "d"))
_WHOLE = {"home address", "care-of address", "local", "remote", "tunnel"}
"""Not broken into lines."""
_RATES = (("out_packets_s", ".0f"), ("out_mbit", ".2f"), ("in_packets_s", ".0f"), ("in_mbit", ".2f"))
NOTHING = "–"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    view = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in columns:
        view.add_column(
            column, justify="right" if column in _NUMBERS else "left", overflow="fold", no_wrap=column in _WHOLE
        )  # fmt: skip
    for row in rows:
        view.add_row(*map(Text, row))
    return view


def _number(value: float | None, form: str = "d") -> str:
    return NOTHING if value is None else format(value, form)


def bindings_table(rows: Sequence[Binding], most: int | None = None, unsaid: int = 0) -> RenderableType:
    """Bindings, `most` of them at most; there are `unsaid` besides."""
    shown = [
        (row.agent, row.home_address or NOTHING, _number(row.bid), row.care_of or NOTHING, _number(row.label),
         _number(row.remaining_s, ".0f"), row.state, row.tunnel or NOTHING)
        for row in rows[:most]
    ]  # fmt: skip
    return _with_rest(_table("bindings", _BINDINGS, shown), len(rows) - len(shown) + unsaid)


def tunnels_table(rows: Sequence[TunnelRow], most: int | None = None, unsaid: int = 0, *, rates: bool = True) -> RenderableType:
    """Tunnels with their rates, or with the totals; `most` of them at most; there are `unsaid` besides."""
    numbers = _RATES if rates else _TOTALS
    shown = [
        (row.agent, row.device, row.local, row.remote, f"{row.encapsulation}, {row.backend}",
         *(_number((row.rates if rates else row.totals).get(key), form) for key, form in numbers))
        for row in rows[:most]
    ]  # fmt: skip
    title, heads = ("tunnels (rates of inner packets)", _RATE_HEADS) if rates else ("tunnels (inner packets)", _TOTAL_HEADS)
    return _with_rest(_table(title, (*_TUNNELS, *heads), shown), len(rows) - len(shown) + unsaid)


def facts_table(title: str, rows: Sequence[tuple[str, str]]) -> RenderableType:
    """Names and values."""
    view = _table(title, ("", ""), rows)
    view.show_header = False
    return view


def _with_rest(table: Table, more: int) -> RenderableType:
    return Group(table, Text(f"  and {more} more")) if more > 0 else table


def errors(samples: Sequence[Sample]) -> list[Text]:
    """A line for every agent that did not answer."""
    return [Text(f"{item.agent.name}: no answer: {item.error}", style="red") for item in samples if item.error]
