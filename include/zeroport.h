/*
 * zeroport: message ports in shared memory, between processes.
 *
 * WORDS
 *
 *   channel   two entangled ports; nothing else exists
 *   port      one end of a channel: sends to, and receives from, the other end only
 *   post      send a message: bytes, and ports if you like
 *   recv      take the next message
 *   release   give a message's room back
 *   transfer  give a port away, with all that waits in it, to whoever receives the message
 *   carrier   the port on which a message with ports in it is posted
 *
 *        this process                  another one, or this one
 *
 *             post ---> m3 m2 m1 ---> recv, use, release
 *      zp_port <-------------- channel --------------> zp_port
 *             recv <--- m1 m2    <--- post
 *
 * A message waits until the other end is asked for it. It comes once, whole, and in the order of
 * the posts. After the last one comes the reason why there are no more, once and for ever.
 *
 *      zp_port parent;
 *      zp_message question;
 *      zp_status status = zp_parent_port(&parent);
 *      while (status == ZP_OK && (status = zp_port_recv(parent, &question)) == ZP_OK) {
 *          status = zp_port_post(parent, question.data, question.len, NULL, 0, NULL);
 *          zp_message_release(&question);
 *      }
 *      puts(zp_status_text(status));
 *      zp_port_close(parent);
 *
 * STATUSES
 *
 * Every function says how it went; ZP_OK is 0. A call that fails has changed nothing, unless its
 * description says otherwise. Any function can return ZP_BAD_ARGUMENT (a pointer is null where it
 * may not be, or misaligned), ZP_INTERNAL, and those with a port or message one of
 *
 *      ZP_BAD_HANDLE     zero, made up, of another process, or gone so long that nobody knows
 *      ZP_FREED          closed or released by this program before
 *      ZP_TRANSFERRED    given away by this program before
 *      ZP_BUSY           another thread is inside a call on this port, maybe for long
 *      ZP_DETACHED       this process is a fork; the port belongs to its parent
 *
 * THREADS
 *
 * Any thread may use any port, but one thread at a time a port and the messages that it has
 * received: who comes second gets ZP_BUSY, nobody waits. zp_port_shutdown alone may always be
 * called. Calls that wait (zp_port_recv, zp_port_post and their _timeout forms) are not ended by
 * signals.
 *
 * FORK
 *
 * A forked child cannot use its parent's ports (ZP_DETACHED), and they notice nothing of it. If
 * the process had several threads, the child may call nothing of this header before exec.
 */
#ifndef ZEROPORT_H
#define ZEROPORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. Compare with zp_version(), which tells the library's. */
#define ZP_VERSION_MAJOR 0
#define ZP_VERSION_MINOR 1
#define ZP_VERSION_PATCH 0
#define ZP_VERSION (ZP_VERSION_MAJOR << 16 | ZP_VERSION_MINOR << 8 | ZP_VERSION_PATCH)

uint32_t zp_version(void);

typedef enum zp_status {
    ZP_OK = 0,

    /* Not now. */
    ZP_EMPTY = 1, /* no message yet */
    ZP_FULL = 2,  /* no room for the message yet */

    /* Never again: how a channel ends. */
    ZP_CLOSED = 3,    /* one of the two ports was closed */
    ZP_PEER_DIED = 4, /* the process at the other end ended without closing its port */
    ZP_LOST = 5,      /* the other port was given away, and nobody ever took it */
    ZP_VIOLATED = 6,  /* the other side broke the protocol of the shared memory */

    /* The call is wrong. */
    ZP_BAD_ARGUMENT = 7,
    ZP_BAD_HANDLE = 8,
    ZP_FREED = 9,
    ZP_TRANSFERRED = 10,
    ZP_BUSY = 11,
    ZP_BORROWED = 12, /* messages that the port has received are still held: release them first */
    ZP_DETACHED = 13,
    ZP_TOO_LARGE = 14, /* longer than zp_port_max_payload says */
    ZP_TOO_SMALL = 15, /* the caller's array is too small; nothing was taken */

    /* These ports cannot be given away on this port. */
    ZP_TOO_MANY_PORTS = 16, /* more than 1024 */
    ZP_DUPLICATE = 17,      /* twice in the list */
    ZP_CARRIER = 18,        /* the port on which the message is posted */
    ZP_OTHER_END = 19,      /* its other end: nobody could receive the message */
    ZP_ENDED = 20,          /* has reported the end of its channel, or was shut down */
    ZP_TRUSTED = 21,        /* of a trusted channel, on a carrier that is not: see ZP_UNTRUSTED */

    /* What came cannot be had. */
    ZP_REFUSED = 22,      /* it is no port, or somebody else has it */
    ZP_INCOMPATIBLE = 23, /* the other program has another version of zeroport */
    ZP_NO_PARENT = 24,    /* this process was not started by a zeroport program */

    /* The rest. */
    ZP_SYSTEM = 25,  /* the operating system refused; errno says why, as after any system call */
    ZP_INTERNAL = 26 /* a bug in zeroport */
} zp_status;

/* What a status means, in a few words: a constant text, also for numbers that are no status. */
const char *zp_status_text(zp_status status);

/*
 * A port that this program holds: a number, to be copied and compared as you like. It can't
 * dangle: once the port is closed or given away, every copy of the number is refused. {0} is no
 * port.
 */
typedef struct zp_port {
    uint64_t id;
} zp_port;

/* ---- Channels -------------------------------------------------------------------------------- */

/*
 * A flag of zp_channel_new: the two ends do not trust each other. What is received on such a port
 * is a private copy. The ends of other channels trust each other: messages are read where they
 * lie, in memory that the other side could change; so they must stay among your own processes.
 */
#define ZP_UNTRUSTED 1u

/*
 * Makes a channel; flags is 0 or ZP_UNTRUSTED. Both ports are yours: close them or give them away.
 *
 *      ZP_BAD_ARGUMENT   ports is null, or a flag is unknown
 *      ZP_SYSTEM         no descriptors (EMFILE, ENFILE) or memory left
 *
 * On failure ports[0] and ports[1] are {0} (as far as there is a place for them).
 */
zp_status zp_channel_new(zp_port ports[2], uint32_t flags);

/*
 * The port to the program that has started this one (in Rust: zeroport::spawn). It is yours, and
 * there is one: ask once, early.
 *
 *      ZP_NO_PARENT      this program was started in another way
 *      ZP_REFUSED        the port was taken before, or belongs to a process further up
 *      ZP_INCOMPATIBLE   the parent has another version of zeroport
 *      ZP_SYSTEM         no descriptors or memory left: close something and ask again
 *
 * On failure *port is {0}.
 */
zp_status zp_parent_port(zp_port *port);

/* ---- Posting --------------------------------------------------------------------------------- */

/* What *bad_index says when no port of the list is to blame. */
#define ZP_NO_INDEX SIZE_MAX

/*
 * Posts one message: len bytes at data (which may be null if len is 0), and the ports in the list
 * (null if port_count is 0). Waits for room; never for the other side to receive this message.
 *
 * Ports: all or nothing. After ZP_OK they are the receiver's, and their handles here are spent
 * (ZP_TRANSFERRED). After anything else all of them are yours as before, and *bad_index (unless
 * bad_index is null) is the place in the list of the one that was refused, from 0, or ZP_NO_INDEX
 * if the status is not about one of them. A port can be given away with messages waiting in it,
 * while its other end posts, and after its other end was closed.
 *
 *      ZP_CLOSED, ZP_PEER_DIED, ZP_LOST, ZP_VIOLATED   nobody would read it
 *      ZP_TOO_LARGE, ZP_TOO_MANY_PORTS                 it can never be posted on this port
 *      ZP_SYSTEM         descriptors could not be sent (EMFILE, ETOOMANYREFS: too many on their
 *                        way)
 *
 * and of a port in the list, beside those for any handle (ZP_BAD_HANDLE, ZP_FREED, ...):
 *
 *      ZP_DUPLICATE, ZP_CARRIER, ZP_OTHER_END, ZP_ENDED, ZP_TRUSTED
 *      ZP_BORROWED       messages that it has received are still held: release them first
 */
zp_status zp_port_post(zp_port port, const void *data, size_t len,
                       const zp_port *ports, size_t port_count, size_t *bad_index);

/* The same, without waiting: ZP_FULL if there is no room now. */
zp_status zp_port_try_post(zp_port port, const void *data, size_t len,
                           const zp_port *ports, size_t port_count, size_t *bad_index);

/* The same, waiting at most so long: ZP_FULL, not before the time is up. */
zp_status zp_port_post_timeout(zp_port port, const void *data, size_t len,
                               const zp_port *ports, size_t port_count, size_t *bad_index,
                               uint32_t timeout_ms);

/* The longest message in bytes that this port can post. On failure *len is 0. */
zp_status zp_port_max_payload(zp_port port, size_t *len);

/* ---- Receiving ------------------------------------------------------------------------------- */

/*
 * A received message, in a place of the caller's. Read it, leave opaque alone. It may be copied:
 * the copies are one message, which is released once. data starts at a multiple of 16 bytes, is
 * never null, and stays as it is until the message is released. On a port that is not ZP_UNTRUSTED
 * it lies in memory that the other side has, and can run out of if messages are held for long.
 */
typedef struct zp_message {
    const void *data;
    size_t len;
    uint32_t tag;        /* 0: bytes; else which type a Rust program has posted */
    uint32_t port_count; /* ports that were not taken yet */
    uint64_t opaque[2];
} zp_message;

/*
 * Waits for the next message. Release it when you are done. *message is written in any case:
 * release what it held before. On failure all of it is 0, and there is nothing to release.
 *
 *      ZP_CLOSED, ZP_PEER_DIED, ZP_LOST, ZP_VIOLATED   all messages were received: the end
 *      ZP_SYSTEM         no descriptors or memory left for the next message, which is still there:
 *                        close something and ask again
 */
zp_status zp_port_recv(zp_port port, zp_message *message);

/* The same, without waiting: ZP_EMPTY if there is none now. */
zp_status zp_port_try_recv(zp_port port, zp_message *message);

/* The same, waiting at most so long: ZP_EMPTY, not before the time is up. */
zp_status zp_port_recv_timeout(zp_port port, zp_message *message, uint32_t timeout_ms);

/*
 * Takes all ports out of a message, in the order of the sender's list; they are yours then. ports
 * has room for capacity of them (null if that is 0). *count is how many were written, and none if
 * the message holds none (any more).
 *
 *      ZP_TOO_SMALL      *count is how many there are; all of them are still in the message
 *      ZP_SYSTEM         no descriptors or memory left; what is not among the *count that were
 *                        written is still in the message: close something and ask again
 *      ZP_VIOLATED       the other side has not sent what it has announced; the channel is closed
 *      ZP_REFUSED, ZP_INCOMPATIBLE   some were no ports: {0} stands in their places, the others
 *                                    are yours
 */
zp_status zp_message_take_ports(zp_message *message, zp_port *ports, size_t capacity,
                                size_t *count);

/*
 * Gives the room of a message back, and fills *message with 0. Ports that were not taken are
 * closed: their other ends see ZP_LOST. After a failure the message is still held, if it was one.
 */
zp_status zp_message_release(zp_message *message);

/* ---- The end --------------------------------------------------------------------------------- */

/*
 * How the channel is, at once, whatever is still to be received: ZP_OK while it is open, else
 * ZP_CLOSED, ZP_PEER_DIED, ZP_LOST or ZP_VIOLATED.
 */
zp_status zp_port_peer_state(zp_port port);

/*
 * Closes the port. What was posted on it is still delivered, then the other end sees ZP_CLOSED;
 * what was not received is dropped. The handle is spent (ZP_FREED). A program that ends closes its
 * ports.
 *
 *      ZP_BORROWED       messages that it has received are still held: release them first
 *      ZP_BUSY           another thread is inside a call on it: zp_port_shutdown ends that
 */
zp_status zp_port_close(zp_port port);

/*
 * Ends the channel as zp_port_close does, from any thread and at any time; whoever waits on the
 * port gets ZP_CLOSED. The handle stays, and the messages that are held stay as they are: release
 * them, then close it. Twice does nothing.
 */
zp_status zp_port_shutdown(zp_port port);

#ifdef __cplusplus
}
#endif

#endif
