/* Children, servers and who calls them. As a child it echoes one message with its argument. */
#define _DEFAULT_SOURCE

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"

static int child(const char *argument) {
    zp_port parent;
    zp_message message;
    const char *value = getenv("GIVEN");
    char text[64];
    EXPECT(ZP_OK, zp_parent_port(&parent));
    EXPECT(ZP_OK, zp_port_recv(parent, &message));
    sprintf(text, "%.*s %s %s", (int)message.len, (const char *)message.data, argument,
            value == NULL ? "-" : value);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_post(parent, text, strlen(text)));
    EXPECT(ZP_REFUSED, zp_parent_port(&parent));
    return 7;
}

static void spawns(char *self) {
    char *argv[] = {NULL, "argument", NULL}, *given[] = {"GIVEN=value", NULL};
    char *wrong[] = {"no value", NULL}, *nobody[] = {"/nonexistent/program", NULL}, *none[] = {NULL};
    const char *expected[] = {"hello argument -", "hello argument value"};
    zp_port port;
    zp_message message;
    pid_t pid;
    int round, status;
    argv[0] = self;
    for (round = 0; round < 2; round++) {
        EXPECT(ZP_OK, zp_spawn(argv, round == 0 ? NULL : given, NULL, &port, &pid));
        EXPECT(ZP_OK, zp_port_post(port, "hello", 5));
        EXPECT(ZP_OK, zp_port_recv(port, &message));
        HOLDS(message.len == strlen(expected[round]));
        HOLDS(memcmp(message.data, expected[round], message.len) == 0);
        EXPECT(ZP_OK, zp_message_release(&message));
        EXPECT(ZP_PEER_DIED, zp_port_recv(port, &message));
        HOLDS(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 7);
        EXPECT(ZP_OK, zp_port_close(port));
    }
    errno = 0;
    EXPECT(ZP_SYSTEM, zp_spawn(nobody, NULL, NULL, &port, &pid));
    HOLDS(errno == ENOENT && port.id == 0 && pid == 0);
    EXPECT(ZP_BAD_ARGUMENT, zp_spawn(NULL, NULL, NULL, &port, &pid));
    EXPECT(ZP_BAD_ARGUMENT, zp_spawn(none, NULL, NULL, &port, &pid));
    EXPECT(ZP_BAD_ARGUMENT, zp_spawn(argv, wrong, NULL, &port, &pid));
    EXPECT(ZP_BAD_ARGUMENT, zp_spawn(argv, NULL, NULL, NULL, &pid));
    EXPECT(ZP_BAD_ARGUMENT, zp_spawn(argv, NULL, NULL, &port, NULL));
}

static char address[64];

struct answer {
    zp_status status;
    zp_port port;
    zp_credentials server;
};

static void *call(void *answer) {
    struct answer *self = answer;
    self->status = zp_connect(address, NULL, &self->port, &self->server);
    return NULL;
}

static void expect_ourselves(zp_credentials *found) {
    HOLDS(found->uid == geteuid() && found->gid == getegid() && found->pid == getpid());
    if (found->pidfd != -1) HOLDS(close(found->pidfd) == 0);
}

static void servers(void) {
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    zp_server server, second;
    zp_caller caller, gone;
    zp_credentials found;
    zp_port port;
    zp_message message;
    zp_info info;
    pthread_t calling;
    struct answer answer;
    struct pollfd waits = {0, POLLIN, 0};
    EXPECT(ZP_NO_SERVER, zp_connect(address, NULL, &port, NULL));
    HOLDS(port.id == 0);
    EXPECT(ZP_OK, zp_server_bind(address, &server));
    EXPECT(ZP_IN_USE, zp_server_bind(address, &second));
    HOLDS(second.id == 0);
    EXPECT(ZP_EMPTY, zp_server_try_accept(server, &caller, NULL));
    EXPECT(ZP_EMPTY, zp_server_accept_timeout(server, &caller, &found, 1));
    HOLDS(caller.id == 0 && found.pid == 0 && found.pidfd == -1);
    EXPECT(ZP_TIMED_OUT, zp_connect_timeout(address, NULL, &port, NULL, 1));
    EXPECT(ZP_OK, zp_server_accept(server, &caller, NULL));
    EXPECT(ZP_HUNG_UP, zp_caller_admit(caller, NULL, &port));
    EXPECT(ZP_FREED, zp_caller_refuse(caller));

    HOLDS(pthread_create(&calling, NULL, call, &answer) == 0);
    EXPECT(ZP_OK, zp_server_fd(server, &waits.fd));
    HOLDS(poll(&waits, 1, 50000) == 1);
    EXPECT(ZP_OK, zp_server_accept(server, &caller, &found));
    expect_ourselves(&found);
    options.size = 1;
    EXPECT(ZP_BAD_ARGUMENT, zp_caller_admit(caller, &options, &port));
    EXPECT(ZP_BAD_ARGUMENT, zp_caller_admit(caller, NULL, NULL));
    EXPECT(ZP_OK, zp_caller_admit(caller, NULL, &port));
    HOLDS(pthread_join(calling, NULL) == 0);
    EXPECT(ZP_OK, answer.status);
    expect_ourselves(&answer.server);
    EXPECT(ZP_OK, zp_port_info(port, &info));
    HOLDS(!info.is_trusted);
    EXPECT(ZP_OK, zp_port_post(answer.port, "hello", 5));
    EXPECT(ZP_OK, zp_port_recv(port, &message));
    HOLDS(message.len == 5);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_close(answer.port));
    EXPECT(ZP_OK, zp_port_close(port));

    HOLDS(pthread_create(&calling, NULL, call, &answer) == 0);
    EXPECT(ZP_OK, zp_server_accept(server, &caller, NULL));
    gone = caller;
    EXPECT(ZP_OK, zp_caller_refuse(caller));
    HOLDS(pthread_join(calling, NULL) == 0);
    EXPECT(ZP_REFUSED, answer.status);
    EXPECT(ZP_FREED, zp_caller_admit(gone, NULL, &port));

    EXPECT(ZP_BAD_ARGUMENT, zp_server_bind(NULL, &second));
    EXPECT(ZP_BAD_ADDRESS, zp_server_bind("", &second));
    EXPECT(ZP_BAD_ADDRESS, zp_connect("@", NULL, &port, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_server_bind(address, NULL));
    EXPECT(ZP_SYSTEM, zp_server_bind("/nonexistent/folder/socket", &second));
    EXPECT(ZP_BAD_ARGUMENT, zp_server_accept(server, NULL, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_server_fd(server, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_connect(NULL, NULL, &port, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_connect(address, NULL, NULL, NULL));
    second.id = caller.id; /* of another kind */
    EXPECT(ZP_BAD_HANDLE, zp_server_try_accept(second, &caller, NULL));
    EXPECT(ZP_BAD_HANDLE, zp_server_close(second));
    EXPECT(ZP_OK, zp_server_close(server));
    EXPECT(ZP_FREED, zp_server_close(server));
    EXPECT(ZP_FREED, zp_server_try_accept(server, &caller, NULL));
    EXPECT(ZP_NO_SERVER, zp_connect(address, NULL, &port, NULL));
}

int main(int argc, char **argv) {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    if (argc > 1) return child(argv[1]);
    spawns(argv[0]);
    sprintf(address, "@zeroport-c-%ld", (long)getpid());
    servers();
    return 0;
}
