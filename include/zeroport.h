/*
 * zeroport: message ports in shared memory, between processes.
 *
 * WORDS
 *
 *   channel   two entangled ports; nothing else exists
 *   port      one end of a channel: sends to, and receives from, the other end only
 *   post      send a message: bytes, and ports and buffers if you like
 *   recv      take the next message
 *   release   give a message's room back
 *   loan      room for a message that is reserved, written in place, then published
 *   buffer    memory of its own: written, sealed for ever, given away without a copy
 *   transfer  give a port away, with all that waits in it, to whoever receives the message
 *   carrier   the port on which a message with ports in it is posted
 *   set       many ports, one wait; what there is comes in an array of events
 *   loop      many ports, one wait; what there is goes to handlers
 *   member    a port in a set or loop
 *   half      what posts, or what receives, of one port: for two threads
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
 *          status = zp_port_post(parent, question.data, question.len);
 *          zp_message_release(&question);
 *      }
 *      puts(zp_status_text(status));
 *      zp_port_close(parent);
 *
 * THREE FORMS
 *
 * What may have to wait comes three times: zp_port_recv waits as long as it takes, zp_port_try_recv
 * does not wait, zp_port_recv_timeout waits at most so long, in milliseconds. Where there is nothing
 * (or no room) now, the last two say so, by ZP_EMPTY (or ZP_FULL); the last one not before the time
 * is up. Signals end no wait. That the other side died or was lost (ZP_PEER_DIED, ZP_LOST) is noticed
 * by who waits at once, and by calls that do not wait within about a millisecond of them.
 *
 * STATUSES
 *
 * Every function says how it went; ZP_OK is 0. A call that fails has changed nothing, and has filled
 * what it was to fill with zeros (a descriptor, a user, a group: with -1), unless its description says
 * otherwise; of an array only the count. Any function can return ZP_BAD_ARGUMENT (a pointer is null where it may not be, or
 * misaligned; there is no such flag), ZP_INTERNAL, and those with a handle one of
 *
 *      ZP_BAD_HANDLE     zero, made up, of another kind, of another process, or gone so long that
 *                        nobody knows
 *      ZP_FREED          closed, freed or released by this program before; or it was in a set or
 *                        loop, which has told its end or is closed
 *      ZP_TRANSFERRED    given away by this program before
 *      ZP_BUSY           another thread is inside a call on it, maybe for long
 *      ZP_DETACHED       this process is a fork; it belongs to the parent
 *
 * ERRNO says more after ZP_SYSTEM: EMFILE or ENFILE (no descriptors left), ENOMEM, and whatever else
 * the operating system has answered. Close something and try again. (If malloc itself has no memory
 * left, the process ends.)
 *
 * THREADS
 *
 * Any thread may use any handle, but one thread at a time a port and the messages that it has
 * received, and one thread at a time a set or loop with all its members: who comes second gets
 * ZP_BUSY, nobody waits. So while one thread waits in zp_port_recv, no other can post on that port:
 * zp_port_split makes two halves of it, for a thread each. Always may be called: zp_port_shutdown,
 * zp_set_wake, zp_loop_wake, zp_loop_stop. A thread that calls this needs a stack of 64 KiB.
 *
 * SIGNALS
 *
 * No function may be called from a signal handler, and a signal ends no wait. To be told of signals
 * have a thread in sigwait(3), which then calls zp_loop_stop or zp_port_shutdown; or poll signalfd(2)
 * beside zp_loop_fd. A thread inside a call must not be cancelled (pthread_cancel): the process would
 * end. SIGPIPE never comes of these functions.
 *
 * FORK
 *
 * A forked child cannot use its parent's handles (ZP_DETACHED). It can close, free and release them,
 * which gives back its own copies (ZP_OK). The parent notices nothing of either.
 * If the process had several threads, the child may call nothing of this header before exec.
 */
#ifndef ZEROPORT_H
#define ZEROPORT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h> /* pid_t, uid_t, gid_t */

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
    ZP_EMPTY = 1,     /* nothing there yet: no message, no event, no caller */
    ZP_FULL = 2,      /* no room for the message yet */
    ZP_READY = 3,     /* there is something already: take it instead of waiting for it */
    ZP_TIMED_OUT = 4, /* the time is up, and the server has not answered */
    ZP_FINISHED = 5,  /* the loop was stopped, or has no port left */

    /* Never again: how a channel ends. */
    ZP_CLOSED = 6,    /* one of the two ports was closed */
    ZP_PEER_DIED = 7, /* the process at the other end ended without closing its port */
    ZP_LOST = 8,      /* the other port was given away, and nobody ever took it */
    ZP_VIOLATED = 9,  /* the other side broke the protocol of the shared memory */

    /* The call is wrong. */
    ZP_BAD_ARGUMENT = 10,
    ZP_BAD_HANDLE = 11,
    ZP_FREED = 12,
    ZP_TRANSFERRED = 13,
    ZP_BUSY = 14,
    ZP_BORROWED = 15, /* messages that it has received are still held: release them first */
    ZP_LOANED = 16,   /* room is reserved on the port: publish or cancel it first */
    ZP_MEMBER = 17,   /* the port is in a set or loop, which receives for it */
    ZP_HALF = 18,     /* it is one half of a port, and not for that: see zp_port_split */
    ZP_STRANGER = 19, /* the port is not in this set or loop; the halves are not of one port */
    ZP_SEALED = 20,   /* the buffer is sealed, and can only be read */
    ZP_DETACHED = 21,
    ZP_TOO_LARGE = 22, /* longer than zp_port_max_payload says, or than what was reserved */
    ZP_TOO_SMALL = 23, /* the caller's array is too small; nothing was taken */

    /* These ports and buffers cannot be given away on this port. */
    ZP_TOO_MANY = 24,  /* more than 1024 ports, or 1024 buffers */
    ZP_DUPLICATE = 25, /* twice in the list */
    ZP_CARRIER = 26,   /* the port on which the message is posted */
    ZP_OTHER_END = 27, /* its other end: nobody could receive the message */
    ZP_ENDED = 28,     /* has reported the end of its channel, or was shut down */
    ZP_TRUSTED = 29,   /* of a trusted channel, on a carrier that is not: see zp_channel_options */

    /* What came cannot be had. */
    ZP_REFUSED = 30,      /* it is no port, or somebody else has it; the server refuses */
    ZP_INCOMPATIBLE = 31, /* the other program has another version of zeroport */
    ZP_UNNAMED = 32,      /* the message was posted without a name */
    ZP_NO_PARENT = 33,    /* this process was not started by a zeroport program */

    /* Servers. */
    ZP_BAD_ADDRESS = 34, /* empty, longer than 107 bytes, or no path that a socket can have */
    ZP_IN_USE = 35,      /* a server listens there, or what is there is no socket */
    ZP_NO_SERVER = 36,   /* nobody listens there */
    ZP_NOT_ALLOWED = 37, /* the permissions of the address forbid it */
    ZP_HUNG_UP = 38,     /* the caller has gone */

    /* The rest. */
    ZP_SYSTEM = 39,  /* the operating system refused; errno says why, as after any system call */
    ZP_INTERNAL = 40 /* a bug in zeroport */
} zp_status;

/* What a status means, in a few words: a constant text, also for numbers that are no status. */
const char *zp_status_text(zp_status status);

/*
 * What this program holds is named by numbers, to be copied and compared as you like. They can't
 * dangle: once the port is closed or given away, every copy of the number is refused. {0} is none.
 */
typedef struct zp_port {
    uint64_t id;
} zp_port;

typedef struct zp_buffer {
    uint64_t id;
} zp_buffer;

typedef struct zp_server {
    uint64_t id;
} zp_server;

typedef struct zp_caller {
    uint64_t id;
} zp_caller;

typedef struct zp_set {
    uint64_t id;
} zp_set;

typedef struct zp_loop {
    uint64_t id;
} zp_loop;

/* ---- Channels -------------------------------------------------------------------------------- */

/* Who holds the two ends. */
#define ZP_TRUST_USUAL 0u /* trusted, but between a server and its callers */
/*
 * The ends trust each other: messages are read where they lie, in memory that the other side could
 * change; so they must stay among your own processes.
 */
#define ZP_TRUST_TRUSTED 1u
/*
 * The other end may be anybody's. What is received is a private copy; large messages and buffers lie
 * in memory that nobody can change any more.
 */
#define ZP_TRUST_UNTRUSTED 2u

/* How a call waits. */
#define ZP_WAIT_ADAPTIVE 0u /* spins for a moment, then sleeps */
#define ZP_WAIT_SLEEP 1u    /* sleeps at once */
#define ZP_WAIT_SPIN 2u     /* spins for ever: for a processor of its own */

#define ZP_LIMIT_USUAL UINT64_MAX

/*
 * How a channel is made. Begin with ZP_CHANNEL_OPTIONS_INIT, then change what you want:
 *
 *      zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
 *      options.trust = ZP_TRUST_UNTRUSTED;
 *
 * Wherever a function takes options, null is the usual.
 */
typedef struct zp_channel_options {
    /*
     * Of this struct, as this program knows it. One that is larger than the library's is accepted, if
     * what the library does not know is 0.
     */
    size_t size;
    uint32_t trust; /* ZP_TRUST_... */
    uint32_t wait;  /* ZP_WAIT_...: how our ports wait, until zp_port_set_wait */
    /*
     * Bytes of the ring in each direction: what ports[0] posts (the parent, the server), and what
     * ports[1] posts (the child, the caller). A power of two from 4 KiB to 1 GiB; 0 is 64 KiB.
     */
    uint64_t capacity[2];
    /*
     * How many bytes may wait beyond the ring in each direction, in larger rings, large messages and
     * buffers: then a post waits, or is ZP_FULL. At most 64 TiB; ZP_LIMIT_USUAL is 256 MiB.
     */
    uint64_t limit[2];
    uint32_t cold;     /* 1: memory is never used again, which is slower and takes less */
    uint32_t reserved; /* 0 */
} zp_channel_options;

#define ZP_CHANNEL_OPTIONS_INIT                                                                    \
    {sizeof(zp_channel_options), ZP_TRUST_USUAL, ZP_WAIT_ADAPTIVE, {0, 0},                         \
     {ZP_LIMIT_USUAL, ZP_LIMIT_USUAL}, 0, 0}

/*
 * Makes a channel. Both ports are yours: close them or give them away.
 *
 *      ZP_BAD_ARGUMENT   ports is null, or an option is not legal
 *      ZP_SYSTEM         no descriptors or memory left
 */
zp_status zp_channel_new(zp_port ports[2], const zp_channel_options *options);

/*
 * The port to the program that has started this one (zp_spawn, or zeroport::spawn in Rust). It is
 * yours, and there is one: ask once, early.
 *
 *      ZP_NO_PARENT      this program was started in another way
 *      ZP_REFUSED        the port was taken before, or belongs to a process further up
 *      ZP_INCOMPATIBLE   the parent has another version of zeroport
 *      ZP_SYSTEM         no descriptors or memory left: close something and ask again
 */
zp_status zp_parent_port(zp_port *port);

/*
 * Starts a program as a child, with a port to it. argv is as for execvp(3): a null-terminated array,
 * argv[0] the program, which is looked for in PATH if there is no '/' in it. envp is null for this
 * program's own environment, or a null-terminated array of NAME=value, which is all of the child's.
 * The standard streams are inherited. No signal is blocked in the child, and SIGPIPE is as at first.
 *
 * The port is yours; what is posted before the child asks for its parent's port waits for it. *pid is
 * the child, to be waited for as after fork(2): waitpid(2).
 *
 * A child that ends without having asked for its port leaves it ZP_LOST.
 *
 *      ZP_BAD_ARGUMENT   argv is null or empty, an entry of envp has no name or no '='
 *      ZP_SYSTEM         the program cannot be started (ENOENT, EACCES, ...), or no descriptors or
 *                        memory are left
 */
zp_status zp_spawn(char *const argv[], char *const envp[], const zp_channel_options *options,
                   zp_port *port, pid_t *pid);

/* ---- Posting --------------------------------------------------------------------------------- */

/*
 * Posts one message: len bytes at data (which may be null if len is 0). Waits for room; never for the
 * other side to receive it. The bytes are copied: they are yours as before.
 *
 *      ZP_CLOSED, ZP_PEER_DIED, ZP_LOST, ZP_VIOLATED   nobody would read it
 *      ZP_TOO_LARGE      it can never be posted on this port
 *      ZP_LOANED         room is reserved on this port
 *      ZP_SYSTEM         no descriptors or memory left for a large message or a larger ring
 */
zp_status zp_port_post(zp_port port, const void *data, size_t len);
zp_status zp_port_try_post(zp_port port, const void *data, size_t len);
zp_status zp_port_post_timeout(zp_port port, const void *data, size_t len, uint32_t timeout_ms);

/* Something that goes with a message: the id of a port or of a buffer. */
typedef struct zp_item {
    uint64_t id;
} zp_item;

/* All that a message can be. Begin with ZP_POST_INIT, and fill what you need. */
typedef struct zp_post {
    const void *data;
    size_t len;
    const zp_item *items; /* what goes with it, or null */
    size_t item_count;
    uint32_t tag;      /* 0: bytes; else the type of the data: see zp_tag_of_plain_data */
    uint32_t reserved; /* 0 */
} zp_post;

#define ZP_POST_INIT {NULL, 0, NULL, 0, 0, 0}

/* What *bad_index says when nothing of the list is to blame. */
#define ZP_NO_INDEX SIZE_MAX

/*
 * As zp_port_post, with a tag, ports and buffers:
 *
 *      zp_item items[] = {{reply.id}, {picture.id}};
 *      zp_post post = {"show this", 9, items, 2, 0, 0};
 *      status = zp_port_post_with(port, &post, NULL);
 *
 * All or nothing. After ZP_OK what was listed is the receiver's, and the handles here are spent
 * (ZP_TRANSFERRED). After anything else all of it is yours as before (a buffer may be sealed by
 * then), and *bad_index (unless bad_index is null) is the place in the list of what was refused, from
 * 0, or ZP_NO_INDEX if the status is not about one of them. A port can be given away with messages
 * waiting in it, while its other end posts, and after its other end was closed.
 *
 *      as zp_port_post, and
 *      ZP_TOO_MANY       ports or buffers
 *      ZP_SYSTEM         descriptors could not be sent (EMFILE, ETOOMANYREFS: too many on their way)
 *
 * and of something in the list, beside those for any handle (ZP_BAD_HANDLE, ZP_FREED, ...):
 *
 *      ZP_DUPLICATE, ZP_CARRIER, ZP_OTHER_END, ZP_ENDED, ZP_TRUSTED
 *      ZP_BORROWED, ZP_LOANED, ZP_MEMBER, ZP_HALF   release, publish, remove, join first
 */
zp_status zp_port_post_with(zp_port port, const zp_post *post, size_t *bad_index);
zp_status zp_port_try_post_with(zp_port port, const zp_post *post, size_t *bad_index);
zp_status zp_port_post_with_timeout(zp_port port, const zp_post *post, size_t *bad_index,
                                    uint32_t timeout_ms);

/*
 * Posts many messages, without items, that appear all at once as far as the room allows; the reader
 * is woken once. *posted (unless posted is null) is how many were posted, from the first on: also
 * after a failure, which is about the next one.
 *
 *      as zp_port_post, and
 *      ZP_BAD_ARGUMENT   there are items; nothing was posted
 */
zp_status zp_port_post_all(zp_port port, const zp_post *posts, size_t count, size_t *posted);
zp_status zp_port_try_post_all(zp_port port, const zp_post *posts, size_t count, size_t *posted);
zp_status zp_port_post_all_timeout(zp_port port, const zp_post *posts, size_t count, size_t *posted,
                                   uint32_t timeout_ms);

/*
 * The tags that Rust programs give their types: plain data by name, size and alignment ("u32", 4, 4),
 * serialised values by name. Never 0, but for null.
 */
uint32_t zp_tag_of_plain_data(const char *name, uint64_t size, uint64_t align);
uint32_t zp_tag_of_name(const char *name);

/*
 * A loan, in a place of the caller's. Write to data, leave opaque alone. What stands there at first
 * is any bytes.
 */
typedef struct zp_loan {
    void *data;
    size_t len;
    uint64_t opaque[2];
} zp_loan;

/*
 * Reserves room for one message of up to len bytes, to be written where it travels. Until it is
 * published or cancelled, other posts on this port are ZP_LOANED.
 *
 *      as zp_port_post, and
 *      ZP_MEMBER         not on a port in a set or loop
 */
zp_status zp_port_reserve(zp_port port, size_t len, zp_loan *loan);
zp_status zp_port_try_reserve(zp_port port, size_t len, zp_loan *loan);
zp_status zp_port_reserve_timeout(zp_port port, size_t len, zp_loan *loan, uint32_t timeout_ms);

/*
 * Posts the first len bytes of a loan as one message, with a tag (0: bytes) and items as in
 * zp_port_post_with, and fills *loan with 0. It waits where items or large messages have to be sent.
 *
 * The loan is spent, also after a failure, but for ZP_BAD_ARGUMENT, for ZP_TOO_LARGE (len is more than
 * was reserved), and where an item was refused before it was tried (its handle leads nowhere or is
 * used, it is listed twice): then *loan is as it was.
 */
zp_status zp_loan_publish(zp_loan *loan, size_t len, uint32_t tag, const zp_item *items,
                          size_t item_count, size_t *bad_index);

/* Gives reserved room back, and fills *loan with 0. Nothing is posted. */
zp_status zp_loan_cancel(zp_loan *loan);

/* The longest message in bytes that this port can post. */
zp_status zp_port_max_payload(zp_port port, size_t *len);

/* ---- Buffers --------------------------------------------------------------------------------- */

/*
 * Makes a buffer of len bytes, all 0: yours, to be filled, and given away in the items of a message,
 * without a copy. It starts at a multiple of 4096 bytes and takes a descriptor.
 *
 *      ZP_SYSTEM         no descriptors or memory left
 */
zp_status zp_buffer_new(size_t len, zp_buffer *buffer);

/* A new buffer with the bytes of another one, sealed or not, which can be written. */
zp_status zp_buffer_copy(zp_buffer buffer, zp_buffer *copy);

/*
 * Where the bytes are. They stay there until the buffer is sealed, posted or freed.
 *
 *      ZP_SEALED         (of zp_buffer_write) it can only be read
 */
zp_status zp_buffer_write(zp_buffer buffer, void **data, size_t *len);
zp_status zp_buffer_read(zp_buffer buffer, const void **data, size_t *len);

/*
 * Ends all writing, for ever and everywhere: the kernel refuses it. Twice does nothing. A buffer that
 * is given away need not be sealed before. Ask zp_buffer_read anew where the bytes are.
 *
 *      ZP_SYSTEM         the kernel refuses; the buffer is freed
 */
zp_status zp_buffer_seal(zp_buffer buffer);

/* Frees a buffer; the handle is spent (ZP_FREED). Who else has the memory keeps it. */
zp_status zp_buffer_free(zp_buffer buffer);

/* ---- Receiving ------------------------------------------------------------------------------- */

/*
 * A received message, in a place of the caller's. Read it, leave opaque alone. It may be copied:
 * the copies are one message, which is released once. data starts at a multiple of 16 bytes, is
 * never null, and stays as it is until the message is released. On a trusted port it lies in memory
 * that the other side has, and can run out of if messages are held for long.
 */
typedef struct zp_message {
    const void *data;
    size_t len;
    uint32_t tag;          /* 0: bytes; else the type that was posted */
    uint32_t port_count;   /* ports that were not taken yet */
    uint32_t buffer_count; /* buffers that were not taken yet */
    uint32_t reserved;
    uint64_t opaque[2];
} zp_message;

/*
 * The next message. Release it when you are done; several may be held, and released in any order.
 * *message is written in any case: release what it held before.
 *
 *      ZP_CLOSED, ZP_PEER_DIED, ZP_LOST, ZP_VIOLATED   all messages were received: the end
 *      ZP_MEMBER         the port is in a set or loop
 *      ZP_SYSTEM         no descriptors or memory left for the next message, which is still there:
 *                        close something and ask again
 */
zp_status zp_port_recv(zp_port port, zp_message *message);
zp_status zp_port_try_recv(zp_port port, zp_message *message);
zp_status zp_port_recv_timeout(zp_port port, zp_message *message, uint32_t timeout_ms);

/*
 * The next message, for which they wait, and as many of those behind it as are there already and as
 * messages has places for: at least 1. *count is how many were written.
 *
 *      as zp_port_recv
 */
zp_status zp_port_recv_all(zp_port port, zp_message *messages, size_t capacity, size_t *count);
zp_status zp_port_try_recv_all(zp_port port, zp_message *messages, size_t capacity,
                               size_t *count);
zp_status zp_port_recv_all_timeout(zp_port port, zp_message *messages, size_t capacity,
                                   size_t *count, uint32_t timeout_ms);

/*
 * Take all ports, or all buffers, out of a message, in the order of the sender's list; they are yours
 * then. (Buffers are sealed.) The array has room for capacity of them (null if that is 0). *count is
 * how many were written, and none if the message holds none (any more).
 *
 *      ZP_TOO_SMALL      *count is how many there are; all of them are still in the message
 *      ZP_SYSTEM         no descriptors or memory left; what is not among the *count that were
 *                        written is still in the message: close something and ask again
 *      ZP_VIOLATED       the other side has not sent what it has announced; the channel is closed
 *      ZP_REFUSED, ZP_INCOMPATIBLE   some were none: {0} stands in their places, the others are
 *                                    yours
 */
zp_status zp_message_take_ports(zp_message *message, zp_port *ports, size_t capacity,
                                size_t *count);
zp_status zp_message_take_buffers(zp_message *message, zp_buffer *buffers, size_t capacity,
                                  size_t *count);

/*
 * Gives the room of a message back, and fills *message with 0; then it is ZP_BAD_HANDLE, which does no
 * harm. Ports and buffers that were not taken are closed and freed: the other ends of the ports see
 * ZP_LOST.
 */
zp_status zp_message_release(zp_message *message);

/*
 * The same for many. Those that cannot be released stay as they are; the status is that of the first
 * of them.
 */
zp_status zp_messages_release(zp_message *messages, size_t count);

/* ---- Names ------------------------------------------------------------------------------------ */

/*
 * A message may have a name, and a request brings the port for its replies: one, or as many as the
 * other side has. All that is posted on a port, with and without names, comes in one order.
 *
 *      requester                                         receiver
 *
 *      zp_port_invoke(port, "sum", ...)  --------------> zp_port_recv, zp_message_open
 *                      |                                 zp_message_take_ports: ports[0]
 *      zp_port_recv(replies) <-------------------------- zp_port_post(ports[0]), zp_port_close
 *
 * Whoever closes that port without a word has not replied, and the requester gets ZP_CLOSED; ZP_LOST
 * if the request was released with the port in it, ZP_PEER_DIED if the process died.
 */

/* The tag of a reply that could not be given: its data is a text that says why. */
#define ZP_TAG_FAILED 0x54fb0c77u

/*
 * As zp_port_post_with, with a name: up to 255 bytes of UTF-8. Rust's Handlers call what listens to it.
 *
 *      as zp_port_post_with, and
 *      ZP_BAD_ARGUMENT   name is null, or no UTF-8
 *      ZP_TOO_LARGE      the name, or name and data together
 */
zp_status zp_port_post_named(zp_port port, const char *name, const zp_post *post,
                             size_t *bad_index);
zp_status zp_port_try_post_named(zp_port port, const char *name, const zp_post *post,
                                 size_t *bad_index);
zp_status zp_port_post_named_timeout(zp_port port, const char *name, const zp_post *post,
                                     size_t *bad_index, uint32_t timeout_ms);

/*
 * As zp_port_post_named, for a request. *replies is yours: the replies come on it as any messages do,
 * then ZP_CLOSED. Close it if you do not care for them (any more). It waits for room as a post does;
 * for replies wait by zp_port_recv.
 *
 *      as zp_port_post_named, and
 *      ZP_SYSTEM         no descriptors or memory left for the channel of the replies
 */
zp_status zp_port_invoke(zp_port port, const char *name, const zp_post *post, size_t *bad_index,
                         zp_port *replies);
zp_status zp_port_try_invoke(zp_port port, const char *name, const zp_post *post,
                             size_t *bad_index, zp_port *replies);
zp_status zp_port_invoke_timeout(zp_port port, const char *name, const zp_post *post,
                                 size_t *bad_index, zp_port *replies, uint32_t timeout_ms);

/* What a message with a name holds. It stays as long as the message does. */
typedef struct zp_named {
    const char *name; /* UTF-8, without a zero at its end: printf("%.*s", (int)name_len, name) */
    size_t name_len;
    const void *data; /* the payload, at a multiple of 16 bytes; never null */
    size_t len;
    uint32_t tag;        /* of the payload */
    uint32_t is_request; /* 1: the first port of the message is where the replies go */
} zp_named;

/*
 * Reads a message that was posted with a name.
 *
 *      ZP_UNNAMED        it has none: it is as it says itself
 */
zp_status zp_message_open(const zp_message *message, zp_named *named);

/* ---- A port for two threads ------------------------------------------------------------------- */

/*
 * Makes two halves of a port: halves[0] posts, halves[1] receives, each for a thread of its own, at
 * the same time. The port's handle is spent (ZP_FREED), the other end notices nothing.
 *
 *      thread 1:   zp_port_post(halves[0], ...)
 *      thread 2:   zp_port_recv(halves[1], ...)
 *
 * A half is a zp_port that does only its part of what a port does; the rest is ZP_HALF. Posts, loans
 * and zp_port_max_payload are for halves[0]; zp_port_recv and its like, zp_port_fd, _arm and _disarm
 * for halves[1]. Neither can be given away, detached, or put into a set or loop.
 *
 * zp_port_close gives one half up. With the second the port is closed, not before: until then what
 * the other end posts to it waits, be there somebody who receives or not (ports in it are ZP_LOST
 * then). zp_port_shutdown, on either half, ends the channel at once for both.
 *
 *      ZP_BORROWED, ZP_LOANED   release its messages, publish or cancel the loan first
 *      ZP_MEMBER, ZP_HALF       it is in a set or loop, or a half already
 */
zp_status zp_port_split(zp_port port, zp_port halves[2]);

/*
 * Makes one port of its two halves, in that order: a port as before. The handles of the halves are
 * spent (ZP_FREED).
 *
 *      ZP_HALF           sender is no half that posts, or receiver none that receives
 *      ZP_STRANGER       they are not of one port
 *      ZP_BORROWED, ZP_LOANED   as in zp_port_split
 */
zp_status zp_port_join(zp_port sender, zp_port receiver, zp_port *port);

/* ---- A port in a loop of another kind --------------------------------------------------------- */

/*
 * A descriptor for poll(2), epoll(7) and the like; it is the port's, which closes it. It tells only
 * of what comes after zp_port_arm.
 *
 *      ZP_READY          the channel has ended: zp_port_try_recv tells
 *      ZP_SYSTEM         no descriptors left
 */
zp_status zp_port_fd(zp_port port, int *fd);

/*
 * From now on the descriptor is readable when there is a message, or the end. Then receive until
 * ZP_EMPTY, and arm again. (It may be readable for other reasons, too.)
 *
 *      ZP_READY          there is something already: receive first
 */
zp_status zp_port_arm(zp_port port);

/* Takes that back: nobody will poll. (It saves the other side a system call.) */
zp_status zp_port_disarm(zp_port port);

/* ---- What a port is, and its end -------------------------------------------------------------- */

/*
 * How the channel is, at once, whatever is still to be received: ZP_OK while it is open, else
 * ZP_CLOSED, ZP_PEER_DIED, ZP_LOST or ZP_VIOLATED.
 */
zp_status zp_port_peer_state(zp_port port);

typedef struct zp_info {
    size_t max_payload;  /* as zp_port_max_payload; 0 in a half that receives */
    size_t max_in_ring;  /* longer messages have memory of their own; 0 as above */
    uint64_t sleeps;     /* how often calls on this port have slept: for tests and measuring */
    uint32_t is_trusted; /* 1: the ends trust each other */
    uint32_t is_member;  /* 1: it is in a set or loop */
} zp_info;

zp_status zp_port_info(zp_port port, zp_info *info);

/* Chooses how calls on this port wait: ZP_WAIT_... */
zp_status zp_port_set_wait(zp_port port, uint32_t wait);

/* A port outside of this library: a ticket, and descriptors. */
#define ZP_TICKET_LEN 80
#define ZP_MAX_DESCRIPTORS 253

/*
 * Gives a port away as its descriptors, with all that waits in it, for those who have a way of their
 * own to pass them: fds has capacity places, of which there must be ZP_MAX_DESCRIPTORS; *count is how
 * many were written. They are close-on-exec, and yours: pass them in this order, with the ticket, and
 * close your own. If all copies are closed the port is ZP_LOST.
 *
 * trust is ZP_TRUST_UNTRUSTED for whoever may get them: then the channel must be untrusted. With
 * ZP_TRUST_TRUSTED you promise that none but your own programs ever get them.
 *
 *      ZP_TOO_SMALL      *count is how many places there must be
 *      ZP_TRUSTED        the channel is trusted, and trust is not
 *      ZP_ENDED, ZP_BORROWED, ZP_LOANED, ZP_MEMBER, ZP_HALF   as in zp_port_post_with
 *      ZP_SYSTEM         no descriptors left
 */
zp_status zp_port_detach(zp_port port, uint32_t trust, uint8_t ticket[ZP_TICKET_LEN], int *fds,
                         size_t capacity, size_t *count);

/*
 * Makes a port of what zp_port_detach gave, here or in another process, once. The descriptors are the
 * library's from then on, also after a failure, but for ZP_BAD_ARGUMENT: one is none, or stands twice
 * in the list. With ZP_TRUST_UNTRUSTED whoever they come from may be hostile; with ZP_TRUST_TRUSTED
 * you promise that all who have ever had them are your own programs.
 *
 *      ZP_REFUSED        they are no port, or somebody has taken it before
 *      ZP_INCOMPATIBLE   they come from another version of zeroport
 *      ZP_SYSTEM         no descriptors or memory left
 */
zp_status zp_port_attach(const uint8_t ticket[ZP_TICKET_LEN], const int *fds, size_t count,
                         uint32_t trust, zp_port *port);

/*
 * Closes the port. What was posted on it is still delivered, then the other end sees ZP_CLOSED;
 * what was not received is dropped. The handle is spent (ZP_FREED). A program that ends closes its
 * ports. A member leaves its set or loop by that, and no event or handler tells of it any more.
 *
 *      ZP_BORROWED, ZP_LOANED   release its messages, publish or cancel the loan first
 *      ZP_BUSY           another thread is inside a call on it: zp_port_shutdown ends that
 */
zp_status zp_port_close(zp_port port);

/*
 * Ends the channel as zp_port_close does, from any thread and at any time; whoever waits on the
 * port gets ZP_CLOSED. The handle stays, and the messages that are held stay as they are: release
 * them, then close it. Twice does nothing.
 */
zp_status zp_port_shutdown(zp_port port);

/* ---- Servers ---------------------------------------------------------------------------------- */

/*
 *      server:  bind ---> accept ---> look at the credentials ---> admit ---> zp_port
 *                                                             \--> refuse
 *      client:  connect --------------------------------------------------> zp_port
 *
 * An address is a path, where a socket file is made with mode 0600, or, after a '@', a name that only
 * the kernel knows: everybody in the same network namespace can connect to such a name, or take it
 * first. Either has up to 107 bytes.
 */

/* Who is at the other end, as the kernel has seen it when it connected, or began to listen. */
typedef struct zp_credentials {
    uid_t uid;
    gid_t gid;
    pid_t pid; /* 0 if it has no number here. It may be another process's by now: see pidfd */
    /*
     * The process itself: readable once it has ended; -1 if the kernel has none to give. Yours to
     * close.
     */
    int pidfd;
} zp_credentials;

/*
 * Listens. The file of a server that has ended is replaced.
 *
 *      ZP_BAD_ADDRESS, ZP_IN_USE
 *      ZP_SYSTEM         the folder is missing or not writable; no descriptors or memory left
 */
zp_status zp_server_bind(const char *address, zp_server *server);

/* A descriptor for poll(2) and the like: readable while a caller waits. It is the server's. */
zp_status zp_server_fd(zp_server server, int *fd);

/*
 * The next caller: yours, to be admitted or refused. *credentials (unless null) is who that is.
 *
 *      ZP_SYSTEM         no descriptors or memory left: callers wait for the next try
 */
zp_status zp_server_accept(zp_server server, zp_caller *caller, zp_credentials *credentials);
zp_status zp_server_try_accept(zp_server server, zp_caller *caller, zp_credentials *credentials);
zp_status zp_server_accept_timeout(zp_server server, zp_caller *caller,
                                   zp_credentials *credentials, uint32_t timeout_ms);

/*
 * Gives a caller one end of a new channel, and you the other: untrusted, unless the options say
 * otherwise. Never waits. The caller's handle is spent, also after a failure other than
 * ZP_BAD_ARGUMENT; it may connect again.
 *
 *      ZP_HUNG_UP        it has gone
 *      ZP_SYSTEM         no descriptors or memory left
 */
zp_status zp_caller_admit(zp_caller caller, const zp_channel_options *options, zp_port *port);

/* Hangs up: its zp_connect is ZP_REFUSED. The handle is spent. */
zp_status zp_caller_refuse(zp_caller caller);

/*
 * Listens no longer, removes the socket file, hangs up on callers that were not accepted. Ports that
 * were given out live on. The handle is spent.
 */
zp_status zp_server_close(zp_server server);

/*
 * Connects to a server, and waits until it has admitted or refused: for ever, if it never accepts.
 * *credentials (unless null) is who listens there: look before you post, where anybody could. Of the
 * options only trust and wait are heeded.
 *
 *      ZP_NO_SERVER, ZP_NOT_ALLOWED, ZP_BAD_ADDRESS
 *      ZP_REFUSED        the server hung up, or is no zeroport server
 *      ZP_INCOMPATIBLE   it has another version of zeroport
 *      ZP_TIMED_OUT      (of zp_connect_timeout) not before the time is up
 *      ZP_SYSTEM         no descriptors or memory left
 */
zp_status zp_connect(const char *address, const zp_channel_options *options, zp_port *port,
                     zp_credentials *credentials);
zp_status zp_connect_timeout(const char *address, const zp_channel_options *options,
                             zp_port *port, zp_credentials *credentials, uint32_t timeout_ms);

/* ---- Sets ------------------------------------------------------------------------------------- */

/*
 * A set waits for many ports at once, however many; what a wait costs depends on those that are
 * active. While a port is a member, you post on it as ever, and the set receives.
 *
 *      zp_event events[64];
 *      size_t count, i;
 *      while (zp_set_wait(set, events, 64, &count) == ZP_OK) {
 *          for (i = 0; i < count; i++) {
 *              if (events[i].kind == ZP_EVENT_MESSAGE) {
 *                  serve(events[i].user, events[i].port, &events[i].message);
 *                  zp_message_release(&events[i].message);
 *              } else if (events[i].kind == ZP_EVENT_CLOSED) {
 *                  free(events[i].user);
 *              }
 *          }
 *      }
 */

/* A message has come: release it. */
#define ZP_EVENT_MESSAGE 1u
/*
 * The channel has ended, after its last message; status says how. The port has left the set, its
 * handle is spent (ZP_FREED), and nothing more comes of it: free what user leads to.
 */
#define ZP_EVENT_CLOSED 2u
/*
 * The next message cannot be had now: status is ZP_SYSTEM, and errno of the wait says why. It is told
 * again at the next wait, which it ends at once: free descriptors or memory, pause or remove the port.
 */
#define ZP_EVENT_FAILED 3u

typedef struct zp_event {
    void *user; /* as given with the port */
    zp_port port;
    uint32_t kind; /* ZP_EVENT_... */
    zp_status status;
    zp_message message;
} zp_event;

/*
 * Makes an empty set: yours to close. It takes two descriptors.
 *
 *      ZP_SYSTEM         no descriptors or memory left
 */
zp_status zp_set_new(zp_set *set);

/*
 * Takes a port in. user is yours, and comes with every event; it may be null. What waits in the port
 * already comes with the next wait. Never waits.
 *
 *      ZP_MEMBER         the port is in a set or loop already
 *      ZP_HALF           it is half a port: join the halves first
 *      ZP_BORROWED, ZP_LOANED   of the port: release, publish or cancel first
 *      ZP_BORROWED       of the set: see zp_set_wait
 *      ZP_SYSTEM         the kernel cannot watch one more (ENOSPC, ENOMEM)
 */
zp_status zp_set_insert(zp_set set, zp_port port, void *user);

/*
 * Takes a port out, with what waits in it: then it is a port as before. Never waits.
 *
 *      ZP_STRANGER       it is not in this set
 *      ZP_BORROWED       messages of it are held: release them first; or see zp_set_wait
 */
zp_status zp_set_remove(zp_set set, zp_port port);

/*
 * Leaves the messages of a port where they are, until it is resumed. Only its end is told, when no
 * message waits in it.
 *
 *      ZP_STRANGER       it is not in this set
 */
zp_status zp_set_pause(zp_set set, zp_port port);
zp_status zp_set_resume(zp_set set, zp_port port);

/*
 * Waits until there is something to tell, and writes as much of it as events has places for: at least
 * 1. *count is how many were written: 0 after zp_set_wake. From one port come at most 64 messages at a
 * time, so none starves another. A set without members waits for zp_set_wake.
 *
 * Messages may be held while you wait again. But those of a port whose ZP_EVENT_CLOSED was told must
 * be released before the next call that changes the set or waits (ZP_BORROWED).
 */
zp_status zp_set_wait(zp_set set, zp_event *events, size_t capacity, size_t *count);
zp_status zp_set_try_wait(zp_set set, zp_event *events, size_t capacity, size_t *count);
zp_status zp_set_wait_timeout(zp_set set, zp_event *events, size_t capacity, size_t *count,
                              uint32_t timeout_ms);

/* Ends a wait, at once or the next one, from any thread. Never waits. */
zp_status zp_set_wake(zp_set set);

/*
 * For loops of other kinds: after zp_set_arm the descriptor is readable when there is something to
 * tell: zp_set_try_wait until ZP_EMPTY, then arm again. The descriptor is the set's.
 *
 *      ZP_READY          there is something already: zp_set_try_wait
 */
zp_status zp_set_fd(zp_set set, int *fd);
zp_status zp_set_arm(zp_set set);

/* Chooses how the set waits: ZP_WAIT_... It spins only over ports that were active just before. */
zp_status zp_set_set_wait(zp_set set, uint32_t wait);

/*
 * Closes the set and all its members: their handles are spent, and no event tells of it.
 *
 *      ZP_BORROWED       messages of it are held: release them first
 */
zp_status zp_set_close(zp_set set);

/* ---- Loops ------------------------------------------------------------------------------------ */

/*
 * A loop waits for many ports, as a set does, and calls handlers, one after the other, on the thread
 * that runs it. There is no hidden thread.
 *
 *      zp_loop_new ---> zp_loop_insert ... ---> zp_loop_run ---> zp_loop_close
 *                                                  |
 *                                  on_message, on_close, on_error, removed
 *
 * From inside a handler everything may be called, also on the loop and its members, but a run of this
 * loop and zp_loop_close (ZP_BUSY). What is closed, removed or paused there gets no message after
 * that one. A handler must return: no longjmp, no C++ exception, no pthread_exit.
 */

/*
 * Who listens to a port. Each function may be null, and gets the user that was given with the port.
 */
typedef struct zp_handlers {
    size_t size; /* of this struct, as this program knows it */
    /*
     * A message has come. It is released when the handler returns, unless it was before. If this is
     * null, messages wait.
     */
    void (*on_message)(void *user, zp_port port, zp_message *message);
    /*
     * The channel has ended: the other end was closed, died or was lost. (What this program has
     * closed or shut down itself is not told.) The handle is spent; removed comes next.
     */
    void (*on_close)(void *user, zp_port port, zp_status reason);
    /*
     * The next message cannot be had now (ZP_SYSTEM; errno says why). It is not lost: the loop tries
     * again each millisecond, and tells once.
     */
    void (*on_error)(void *user, zp_port port, zp_status status);
    /*
     * Nothing more is called with this user: free it. It comes exactly once for each ZP_OK of
     * zp_loop_insert, whatever way the port goes (its end, zp_port_close, zp_loop_remove,
     * zp_loop_close), and never while another handler of this port runs.
     */
    void (*removed)(void *user);
} zp_handlers;

#define ZP_HANDLERS_INIT {sizeof(zp_handlers), NULL, NULL, NULL, NULL}

/* Makes an empty loop: yours to close. It takes two descriptors. */
zp_status zp_loop_new(zp_loop *loop);

/*
 * Takes a port in, whose messages go to these handlers (a copy is made). If this fails the user stays
 * yours: removed is not called. Never waits.
 *
 *      as zp_set_insert
 */
zp_status zp_loop_insert(zp_loop loop, zp_port port, const zp_handlers *handlers, void *user);

/*
 * Takes a port out, with what waits in it: then it is a port as before. The message that its handler
 * is just told is released by that, and so it is by zp_port_close.
 *
 *      ZP_STRANGER       it is not in this loop
 */
zp_status zp_loop_remove(zp_loop loop, zp_port port);

/* As zp_set_pause and zp_set_resume. */
zp_status zp_loop_pause(zp_loop loop, zp_port port);
zp_status zp_loop_resume(zp_loop loop, zp_port port);

/*
 * Call handlers as messages and ends come.
 *
 *      zp_loop_run          until the loop is stopped, or has no port left: then ZP_OK
 *      zp_loop_run_timeout    the same, at most so long: ZP_OK when the time is up, else ZP_FINISHED
 *      zp_loop_run_once     waits for something, tells what is there (a number of messages at most);
 *                           ends without any after zp_loop_wake
 *      zp_loop_run_ready    tells what is there, without waiting
 *
 * The last two say ZP_FINISHED where zp_loop_run would have ended, else ZP_OK.
 *
 *      ZP_BUSY              the loop runs already
 */
zp_status zp_loop_run(zp_loop loop);
zp_status zp_loop_run_timeout(zp_loop loop, uint32_t timeout_ms);
zp_status zp_loop_run_once(zp_loop loop);
zp_status zp_loop_run_ready(zp_loop loop);

/*
 * Ends the run, from any thread, when the handler that runs has returned; if there is no run, the
 * next one ends at once. Never waits.
 */
zp_status zp_loop_stop(zp_loop loop);

/* Ends a wait of zp_loop_run_once, at once or the next one, from any thread. Never waits. */
zp_status zp_loop_wake(zp_loop loop);

/*
 * For loops of other kinds: after zp_loop_arm the descriptor is readable when there is something to
 * tell: zp_loop_run_ready, then arm again. The descriptor is the loop's.
 *
 *      ZP_READY          there is something already: zp_loop_run_ready
 */
zp_status zp_loop_fd(zp_loop loop, int *fd);
zp_status zp_loop_arm(zp_loop loop);

/* Chooses how the loop waits, as zp_set_set_wait does. */
zp_status zp_loop_set_wait(zp_loop loop, uint32_t wait);

/*
 * Closes the loop and all its members: their handles are spent. Not from inside a handler (ZP_BUSY).
 */
zp_status zp_loop_close(zp_loop loop);

#ifdef __cplusplus
}
#endif

#endif
