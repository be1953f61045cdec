"""Mobile IPv4 on the kernel: sockets, tunnels, forwarding rules, proxy ARP, durable state; the three roles as agents."""
