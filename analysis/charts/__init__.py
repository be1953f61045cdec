"""Figures of reconstructed connections and of signalling, drawn with matplotlib, and the data of the interactive DSN plot.

Every function returns a Figure for `analysis.style.save`. Where many points fall on one pixel one is drawn; retransmissions,
reinjections and extremes stay. Rings: thinning, view (rows, colours and marks of one direction) <- axes <- figures;
sequence_layout <- sequences <- signalling.
"""

from analysis.charts.bindings import binding_timeline
from analysis.charts.distributions import delivery_distribution_figure, gap_distribution_figure
from analysis.charts.dsn import dsn_figure, mapping_figure
from analysis.charts.interactive import frame_numbers, plot_data, script_hash, script_text
from analysis.charts.rates import outstanding_figure, subflow_goodput_figure
from analysis.charts.sequences import sequence_chart, sequence_pages
from analysis.charts.signalling import mobility_sequence_chart, mptcp_sequence_chart

__all__ = [
    "binding_timeline", "delivery_distribution_figure", "dsn_figure", "frame_numbers", "gap_distribution_figure",
    "mapping_figure", "mobility_sequence_chart", "mptcp_sequence_chart", "outstanding_figure", "plot_data", "script_hash",
    "script_text", "sequence_chart", "sequence_pages", "subflow_goodput_figure",
]  # fmt: skip
