"""The lightweight MPTCP proxy: TCP on one side, MPTCP version 1 on the other, by rewriting headers (Hampel, Rana and Klein 2013).

Nothing is buffered and no stream is assembled: a packet is translated or dropped.
"""
