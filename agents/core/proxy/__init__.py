"""The lightweight MPTCP proxy: TCP on one side, MPTCP version 1 on the other, by rewriting headers.

After Hampel, Rana and Klein, Seamless TCP Mobility Using Lightweight MPTCP Proxy (2013), with the protocol of RFC 8684.
Nothing is buffered and no stream is assembled: a packet is translated or dropped.
"""
