/* Linked increases (RFC 6356) as a congestion control of Linux's MPTCP, by BPF struct_ops.
 *
 * Each subflow of a connection grows by  min(alpha * acked / cwnd_total, acked / cwnd_i)  per ACK (section 3), with
 *     alpha = cwnd_total * max(cwnd_i / rtt_i^2) / (sum of cwnd_i / rtt_i)^2,
 * windows in packets. With w = cwnd_total / alpha = (sum of cwnd_i / rtt_i)^2 / max(cwnd_i / rtt_i^2) that is Reno's increase
 * times min(1, cwnd_i / w), so that Reno's own code does the rest: slow start, windows that are not used, halving on loss.
 * A connection with one subflow, and plain TCP, is Reno: then w = cwnd_i.
 *
 * Subflows find each other by the address of their MPTCP socket. Types hold only the members that are used; libbpf finds
 * their places in the running kernel. Deviation: windows and round trips of the other subflows are those of their latest
 * ACK, and two ACKs at the same time may read each other's old values.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define KERNEL_TYPE __attribute__((preserve_access_index))
#define SUBFLOWS_MAX 8
#define SCALE 24 /* windows over round trips, in packets per 2^24 us */
#define NON_RESTRICTED 1 /* TCP_CONG_NON_RESTRICTED: network namespaces may choose it */
#define BPF_MAP_TYPE_HASH 1

struct inet_connection_sock {
    void *icsk_ulp_data;
    u64 icsk_ca_priv[13];
} KERNEL_TYPE;

struct tcp_sock {
    struct inet_connection_sock inet_conn;
    u32 snd_cwnd;
    u32 snd_ssthresh;
    u32 srtt_us;
    u8 is_mptcp;
} KERNEL_TYPE;

struct sock { /* all of it is the kernel's matter, but libbpf compares kinds of types */
    char any;
};

struct mptcp_subflow_context {
    struct sock *conn;
} KERNEL_TYPE;

struct tcp_congestion_ops {
    u32 (*ssthresh)(struct sock *sk);
    void (*cong_avoid)(struct sock *sk, u32 ack, u32 acked);
    u32 (*undo_cwnd)(struct sock *sk);
    void (*release)(struct sock *sk);
    u32 flags;
    char name[16];
};

extern void tcp_reno_cong_avoid(struct sock *sk, u32 ack, u32 acked) SEC(".ksyms");
extern u32 tcp_reno_ssthresh(struct sock *sk) SEC(".ksyms");
extern u32 tcp_reno_undo_cwnd(struct sock *sk) SEC(".ksyms");

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;

struct subflow {
    u64 socket; /* 0: free */
    u64 rate;   /* cwnd / rtt */
    u64 steep;  /* cwnd / rtt^2 */
};

struct connection {
    struct subflow subflows[SUBFLOWS_MAX];
};

struct {
    int (*type)[BPF_MAP_TYPE_HASH];
    int (*max_entries)[4096];
    u64 *key;
    struct connection *value;
} connections SEC(".maps");

/* What the kernel keeps for each socket: its connection, and the part of an acknowledged packet that is still owed. */
struct own {
    u64 connection;
    u64 credit;
};

#define CREDIT 10

static const struct connection nobody;

static u64 connection_of(struct tcp_sock *tp)
{
    struct mptcp_subflow_context *context = tp->inet_conn.icsk_ulp_data;
    u64 conn = 0;

    if (tp->is_mptcp && context)
        bpf_probe_read_kernel(&conn, sizeof(conn), __builtin_preserve_access_index(&context->conn));
    return conn;
}

/* w of the text above; notes what this subflow, `me`, has. A ninth subflow sees the others and is not seen. */
static u64 joint_window(struct connection *all, u64 me, u64 rate, u64 steep)
{
    u64 sum = rate, steepest = steep;
    int i, place = -1;

#pragma unroll
    for (i = 0; i < SUBFLOWS_MAX; i++) {
        struct subflow *other = &all->subflows[i];

        if (other->socket == me) {
            place = i;
        } else if (other->socket) {
            sum += other->rate;
            if (other->steep > steepest)
                steepest = other->steep;
        } else if (place < 0) {
            place = i;
        }
    }
#pragma unroll
    for (i = 0; i < SUBFLOWS_MAX; i++) {
        if (i == place) { /* the verifier wants constant places */
            all->subflows[i].socket = me;
            all->subflows[i].rate = rate;
            all->subflows[i].steep = steep;
        }
    }
    return steepest ? sum * sum / steepest : 0;
}

SEC("struct_ops/cong_avoid")
void lia_cong_avoid(u64 *ctx)
{
    struct sock *sk = (struct sock *)ctx[0];
    struct tcp_sock *tp = (struct tcp_sock *)ctx[0];
    struct own *own = (struct own *)tp->inet_conn.icsk_ca_priv;
    u32 ack = ctx[1], acked = ctx[2];
    u64 cwnd = tp->snd_cwnd, rtt_us = tp->srtt_us >> 3, conn, w, rate;
    struct connection *all;

    conn = connection_of(tp);
    if (!conn || !rtt_us || cwnd < tp->snd_ssthresh) {
        tcp_reno_cong_avoid(sk, ack, acked);
        return;
    }
    all = bpf_map_lookup_elem(&connections, &conn);
    if (!all) {
        bpf_map_update_elem(&connections, &conn, &nobody, 1);
        all = bpf_map_lookup_elem(&connections, &conn);
    }
    if (!all) {
        tcp_reno_cong_avoid(sk, ack, acked);
        return;
    }
    own->connection = conn;
    rate = (cwnd << SCALE) / rtt_us;
    w = joint_window(all, ctx[0], rate, (rate << SCALE) / rtt_us);
    if (w < cwnd)
        w = cwnd;
    own->credit += ((u64)acked << CREDIT) * cwnd / w;
    acked = own->credit >> CREDIT;
    if (acked) {
        own->credit &= (1 << CREDIT) - 1;
        tcp_reno_cong_avoid(sk, ack, acked);
    }
}

SEC("struct_ops/release")
void lia_release(u64 *ctx)
{
    struct tcp_sock *tp = (struct tcp_sock *)ctx[0];
    struct own *own = (struct own *)tp->inet_conn.icsk_ca_priv;
    u64 conn = own->connection;
    struct connection *all;
    u64 left = 0;
    int i;

    if (!conn)
        return;
    all = bpf_map_lookup_elem(&connections, &conn);
    if (!all)
        return;
#pragma unroll
    for (i = 0; i < SUBFLOWS_MAX; i++) {
        if (all->subflows[i].socket == ctx[0])
            all->subflows[i].socket = 0;
        left |= all->subflows[i].socket;
    }
    if (!left)
        bpf_map_delete_elem(&connections, &conn);
}

SEC("struct_ops/ssthresh")
u32 lia_ssthresh(u64 *ctx)
{
    return tcp_reno_ssthresh((struct sock *)ctx[0]);
}

SEC("struct_ops/undo_cwnd")
u32 lia_undo_cwnd(u64 *ctx)
{
    return tcp_reno_undo_cwnd((struct sock *)ctx[0]);
}

SEC(".struct_ops")
struct tcp_congestion_ops lia = {
    .ssthresh = (void *)lia_ssthresh,
    .cong_avoid = (void *)lia_cong_avoid,
    .undo_cwnd = (void *)lia_undo_cwnd,
    .release = (void *)lia_release,
    .flags = NON_RESTRICTED,
    .name = NAME,
};

char gpl[] SEC("license") = "GPL";
